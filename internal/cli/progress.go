// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/term"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

const (
	// progressDelay is how long something may take without a word.
	progressDelay = time.Second
	// progressEvery limits redrawing.
	progressEvery = 100 * time.Millisecond
	barWidth      = 24
)

// progress shows steps as they go: a bar a line on a terminal, a line for each
// step's change elsewhere. Nothing is shown of what is over within a second.
type progress struct {
	out     *os.File
	quiet   bool
	bars    bool
	began   time.Time
	drawn   time.Time
	order   []string
	steps   map[string]*progressStep
	onTerm  int // lines on the terminal now
	stopped bool
}

type progressStep struct {
	*v1.Progress
	began   time.Time
	printed string // the status last printed, without a terminal
}

func newProgress(out *os.File, quiet bool) *progress {
	return &progress{out: out, quiet: quiet, bars: isTerminal(out), began: time.Now(), steps: map[string]*progressStep{}}
}

func (p *progress) update(u *v1.Progress) {
	if p.quiet || p.stopped || u == nil {
		return
	}
	s := p.steps[u.Id]
	if s == nil {
		s = &progressStep{began: time.Now()}
		p.steps[u.Id] = s
		p.order = append(p.order, u.Id)
	}
	s.Progress = u
	if time.Since(p.began) < progressDelay {
		return
	}
	if !p.bars {
		p.plain()
		return
	}
	if time.Since(p.drawn) >= progressEvery {
		p.draw()
	}
}

// plain prints the steps whose status changed.
func (p *progress) plain() {
	for _, id := range p.order {
		s := p.steps[id]
		if s.Status == s.printed {
			continue
		}
		s.printed = s.Status
		fmt.Fprintf(p.out, "%s: %s%s\n", printable(id), printable(s.Status), sizeOf(s.Total))
	}
}

func sizeOf(total int64) string {
	if total <= 0 {
		return ""
	}
	return " (" + units.HumanSize(float64(total)) + ")"
}

// draw replaces the lines drawn before.
func (p *progress) draw() {
	p.drawn = time.Now()
	width, height, err := term.GetSize(int(p.out.Fd()))
	if err != nil || width <= 0 {
		width, height = 80, 24
	}
	var b strings.Builder
	if p.onTerm > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.onTerm)
	}
	shown := p.order[max(0, len(p.order)-max(1, height-2)):]
	for _, id := range shown {
		line := []rune(p.steps[id].line())
		b.WriteString(string(line[:min(len(line), width-1)]) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	p.onTerm = len(shown)
	fmt.Fprint(p.out, b.String())
}

func (s *progressStep) line() string {
	head := fmt.Sprintf("%-14s %-12s", printable(s.Id), printable(s.Status))
	if s.Total <= 0 {
		return head
	}
	done := min(max(s.Current, 0), s.Total)
	filled := int(done * barWidth / s.Total)
	bar := "[" + strings.Repeat("=", filled) + strings.Repeat(" ", barWidth-filled) + "]"
	rate := float64(done) / max(time.Since(s.began).Seconds(), 0.001)
	return fmt.Sprintf("%s %s %9s/%-9s %s/s", head, bar,
		units.HumanSize(float64(done)), units.HumanSize(float64(s.Total)), units.HumanSize(rate))
}

// finish leaves the terminal tidy: what was drawn goes, since the result follows.
func (p *progress) finish() {
	if p.stopped {
		return
	}
	p.stopped = true
	if p.onTerm > 0 {
		fmt.Fprintf(p.out, "\x1b[%dA\x1b[J", p.onTerm)
	}
}
