package hygiene

import (
	"bytes"
	"os"
	"runtime"
	"strings"
)

// takeOwn sees what this process has.
func (s *Snapshot) takeOwn() error {
	// Go opens the descriptors of its network poller when first it needs them: now, so that they are in every snapshot.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	r.Close()
	w.Close()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil { // the directory's own has been closed
			s.add(own, "descriptor of "+target, detail{where: "number " + fd.Name()})
		}
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	s.threads = len(tasks)
	for _, g := range goroutines(stacks()) {
		s.add(own, "goroutine started "+g.started, detail{where: "in " + g.function})
	}
	return nil
}

// stacks returns the stacks of all goroutines.
func stacks() []byte {
	for n := 1 << 16; ; n *= 2 {
		b := make([]byte, n)
		if got := runtime.Stack(b, true); got < n {
			return b[:got]
		}
	}
}

// goroutine is named for the place where it was started: what it runs may look different before it has begun.
type goroutine struct{ started, function string }

// goroutines returns the goroutines in a dump, the first one, which took it, left out.
func goroutines(dump []byte) []goroutine {
	var out []goroutine
	for i, g := range strings.Split(string(bytes.TrimSpace(dump)), "\n\n") {
		lines := strings.Split(g, "\n")
		if i == 0 || len(lines) < 3 {
			continue
		}
		// The last two lines are "created by F in goroutine N" and its place, those before them the function that was
		// started and where it is; of the main goroutine the last two are main.main.
		function, place := lines[len(lines)-2], strings.TrimSpace(lines[len(lines)-1])
		place, _, _ = strings.Cut(place, " +0x")
		started := "at " + place
		if creator, ok := strings.CutPrefix(function, "created by "); ok && len(lines) >= 5 {
			creator, _, _ = strings.Cut(creator, " in goroutine ")
			started = "by " + creator + " " + started
			function = lines[len(lines)-4]
		}
		if open := strings.LastIndexByte(function, '('); open > 0 {
			function = function[:open]
		}
		out = append(out, goroutine{started, function})
	}
	return out
}
