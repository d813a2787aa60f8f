// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// rdtsc reads the CPU's time stamp counter.
func rdtsc() uint64

// cpuid asks the CPU about itself.
func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)

// The frequencies that a counter may have (kHz): 100 MHz to 10 GHz.
const (
	minTSCKHz = 100_000
	maxTSCKHz = 10_000_000
)

// The file that tells the counter's frequency; few kernels have it.
const tscFreqFile = "/sys/devices/system/cpu/cpu0/tsc_freq_khz"

// TSCKHz returns the frequency of the host's time stamp counter in kHz.
//
// The guest's counter is the host's, and a guest that measures it itself against the
// emulated timer of QEMU's microvm hangs at boot on a busy host: it must be told
// (tsc_early_khz). The guest's clock runs by this number until something corrects it,
// so the MHz of /proc/cpuinfo, which follow the CPU's current speed on some hosts, will
// not do. Asked in order: the host's kernel, the CPU, and else a measurement of about
// 50 ms. The first call does the work; all later ones have its answer.
func TSCKHz() (uint64, error) { return tscKHz() }

var tscKHz = sync.OnceValues(func() (uint64, error) {
	if khz, ok := tscFromKernel(tscFreqFile); ok {
		return khz, nil
	}
	if khz, ok := tscFromCPU(cpuid); ok {
		return khz, nil
	}
	return measureTSC(50 * time.Millisecond)
})

func plausible(khz uint64) bool { return khz >= minTSCKHz && khz <= maxTSCKHz }

func tscFromKernel(file string) (uint64, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	khz, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return khz, err == nil && plausible(khz)
}

// tscFromCPU reads leaf 0x15: the ratio of the counter to a crystal, and the crystal's
// Hz (Intel SDM volume 2A, CPUID). Only all three numbers together are exact; leaf 0x16
// has the nominal speed of the CPU in whole MHz, which is not.
func tscFromCPU(cpuid func(leaf, sub uint32) (eax, ebx, ecx, edx uint32)) (uint64, bool) {
	if highest, _, _, _ := cpuid(0, 0); highest < 0x15 {
		return 0, false
	}
	denominator, numerator, crystal, _ := cpuid(0x15, 0)
	if denominator == 0 || numerator == 0 || crystal == 0 {
		return 0, false
	}
	khz := uint64(crystal) * uint64(numerator) / uint64(denominator) / 1000
	return khz, plausible(khz)
}

// measureTSC counts ticks for about the given time, three times, and takes the median.
func measureTSC(d time.Duration) (uint64, error) {
	runtime.LockOSThread() // spares the samples most of the scheduler's noise
	defer runtime.UnlockOSThread()
	var found []uint64
	for range 3 {
		start, err := sampleTSC()
		if err != nil {
			return 0, err
		}
		time.Sleep(d / 3)
		end, err := sampleTSC()
		if err != nil {
			return 0, err
		}
		if end.ns <= start.ns || end.ticks <= start.ticks {
			return 0, errors.New("measuring the time stamp counter: it does not run forward")
		}
		found = append(found, uint64(float64(end.ticks-start.ticks)*1e6/float64(end.ns-start.ns)+0.5))
	}
	slices.Sort(found)
	if khz := found[1]; plausible(khz) {
		return khz, nil
	}
	return 0, fmt.Errorf("measuring the time stamp counter: %d kHz cannot be", found[1])
}

// tscSample is the counter at a moment of CLOCK_MONOTONIC_RAW, which NTP does not bend.
type tscSample struct {
	ticks uint64
	ns    int64
}

// sampleTSC reads clock and counter together: of some tries the one that took least
// time, so that an interruption between the readings does not count.
func sampleTSC() (tscSample, error) {
	const tries = 16
	best, width := tscSample{}, uint64(0)
	for range tries {
		before := rdtsc()
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts); err != nil {
			return tscSample{}, fmt.Errorf("reading CLOCK_MONOTONIC_RAW: %w", err)
		}
		after := rdtsc()
		if took := after - before; width == 0 || took < width {
			best, width = tscSample{ticks: before + took/2, ns: ts.Nano()}, took
		}
	}
	return best, nil
}
