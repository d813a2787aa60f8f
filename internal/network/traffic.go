// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

// Traffic is what has gone over a slot's interfaces, in bytes. Slots are used again, and their counters go on: whoever
// takes one notes where they stood.
type Traffic struct {
	Received uint64 // by the machine
	Sent     uint64
}

// Traffic counts at the host's ends of a slot that is taken.
func (h *Host) Traffic(id string) (sum Traffic, err error) {
	if _, there := h.Slot(id); !there {
		return Traffic{}, nil
	}
	for index := range h.NICs {
		l, err := h.links.LinkByName(portName(id, index))
		if err != nil {
			return Traffic{}, err
		}
		if counted := l.Attrs().Statistics; counted != nil { // the host's end receives what the machine sends
			sum.Received += counted.TxBytes
			sum.Sent += counted.RxBytes
		}
	}
	return sum, nil
}
