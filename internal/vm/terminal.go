package vm

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"pqlab/internal/vm/channel"
)

func isTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// terminalOf describes the terminal that the guest is to have, and where its output goes; nil if none of the files is
// one. It has the settings of the user's, which says how keys are named and lines are edited.
func terminalOf(stdin, stdout, stderr *os.File) (*channel.Terminal, *os.File) {
	var t channel.Terminal
	var screen *os.File
	for i, f := range []*os.File{stdin, stdout, stderr} {
		if t.On[i] = isTerminal(f); t.On[i] {
			screen = f
		}
	}
	if screen == nil {
		return nil, nil
	}
	if settings, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS); err == nil {
		if !t.On[0] { // the user's stays as it is, and processes the output
			settings.Oflag &^= unix.OPOST
		}
		t.Settings = settings
	}
	if size, err := unix.IoctlGetWinsize(int(screen.Fd()), unix.TIOCGWINSZ); err == nil {
		t.Size = *size
	}
	return &t, screen
}

// raw makes the user's terminal hand on every key, Ctrl-C too: that of the guest knows what to do with it.
func raw(stdin, screen *os.File) (restore func(), err error) {
	if screen == nil || !isTerminal(stdin) {
		return func() {}, nil
	}
	before, err := term.MakeRaw(int(stdin.Fd()))
	if err != nil {
		return nil, fmt.Errorf("set up the terminal: %w", err)
	}
	return func() { _ = term.Restore(int(stdin.Fd()), before) }, nil
}

// escape finds the keys that end a guest which does not answer: Ctrl-] three times within a second, as with
// systemd-nspawn.
type escape struct {
	n     int
	first time.Time
}

const (
	escapeKey   = 0x1d
	escapeTimes = 3
	escapeTime  = time.Second
)

// seen tells whether these keys complete the sequence.
func (e *escape) seen(keys []byte, now time.Time) bool {
	for _, k := range keys {
		switch {
		case k != escapeKey:
			e.n = 0
		case e.n == 0 || now.Sub(e.first) > escapeTime:
			e.n, e.first = 1, now
		default:
			e.n++
		}
		if e.n == escapeTimes {
			return true
		}
	}
	return false
}
