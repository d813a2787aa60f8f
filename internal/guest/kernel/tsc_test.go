// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// Two measurements by different lengths agree to 1 in 10,000, and with what TSCKHz says.
func TestMeasureTSCAgreesWithItself(t *testing.T) {
	t.Parallel()
	told, err := TSCKHz()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{30 * time.Millisecond, 90 * time.Millisecond} {
		khz, err := measureTSC(d)
		if err != nil {
			t.Fatal(err)
		}
		if off := math.Abs(float64(khz)-float64(told)) / float64(told); off > 1e-4 {
			t.Errorf("measured %d kHz in %v, TSCKHz says %d: %.0f parts per million apart", khz, d, told, off*1e6)
		}
	}
	if again, _ := TSCKHz(); again != told {
		t.Errorf("TSCKHz said %d, then %d", told, again)
	}
}

// The host's kernel tells its own measurement at boot.
func TestTSCKHzAgreesWithTheHostsLog(t *testing.T) {
	t.Parallel()
	log, err := os.ReadFile("/var/log/dmesg")
	found := regexp.MustCompile(`tsc: (?:Refined TSC clocksource calibration:|Detected) ([0-9]+)\.([0-9]{3}) MHz`).FindAllSubmatch(log, -1)
	if err != nil || found == nil {
		t.Skip("the host keeps no log of its boot that tells the frequency")
	}
	last := found[len(found)-1]
	want, _ := strconv.ParseFloat(string(last[1])+string(last[2]), 64)
	if got, err := TSCKHz(); err != nil || math.Abs(float64(got)-want)/want > 1e-3 {
		t.Errorf("TSCKHz = %d, %v; the host's kernel found %v", got, err, want)
	}
}

func TestTSCFromKernel(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{"2596143\n": 2596143, "0\n": 0, "12": 0, "99999999999": 0, "fast": 0, "": 0} {
		path := writeFile(t, filepath.Join(t.TempDir(), "tsc_freq_khz"), []byte(text))
		khz, ok := tscFromKernel(path)
		if ok != (want != 0) || ok && khz != want {
			t.Errorf("file with %q: %d, %v; want %d", text, khz, ok, want)
		}
	}
	if _, ok := tscFromKernel("/nowhere"); ok {
		t.Error("a missing file tells a frequency")
	}
}

func TestTSCFromCPU(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		highest, denominator, numerator, crystal uint32
		want                                     uint64 // zero: not trusted
	}{
		"all three":         {0x16, 2, 216, 24_000_000, 2_592_000},
		"no such leaf":      {0x14, 2, 216, 24_000_000, 0},
		"crystal not told":  {0x16, 2, 216, 0, 0},
		"ratio not told":    {0x16, 0, 0, 24_000_000, 0},
		"cannot be so slow": {0x16, 100, 1, 24_000_000, 0},
	} {
		khz, ok := tscFromCPU(func(leaf, _ uint32) (a, b, c, d uint32) {
			if leaf == 0 {
				return test.highest, 0, 0, 0
			}
			return test.denominator, test.numerator, test.crystal, 0
		})
		if ok != (test.want != 0) || ok && khz != test.want {
			t.Errorf("%s: %d, %v; want %d", name, khz, ok, test.want)
		}
	}
}

func TestCPUIDAnswers(t *testing.T) {
	t.Parallel()
	highest, b, c, d := cpuid(0, 0)
	if highest == 0 || b == 0 || c == 0 || d == 0 {
		t.Errorf("leaf 0 is %x %x %x %x, want the highest leaf and a vendor", highest, b, c, d)
	}
}

func TestRDTSCRunsForward(t *testing.T) {
	t.Parallel()
	last := rdtsc()
	for range 1000 {
		now := rdtsc()
		if now < last {
			t.Fatalf("counter went from %d back to %d", last, now)
		}
		last = now
	}
}
