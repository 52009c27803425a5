package hygiene

import (
	"bytes"
	"fmt"
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
		s.add(own, g, detail{})
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

// goroutines names the goroutines in a dump, the first one, which took it, left out: by the function that they run and
// the place where they were started.
func goroutines(dump []byte) []string {
	var out []string
	for i, g := range strings.Split(string(bytes.TrimSpace(dump)), "\n\n") {
		lines := strings.Split(g, "\n")
		if i == 0 || len(lines) < 3 {
			continue
		}
		function, place := lines[len(lines)-2], strings.TrimSpace(lines[len(lines)-1])
		by := ""
		if creator, ok := strings.CutPrefix(function, "created by "); ok && len(lines) >= 5 {
			creator, _, _ = strings.Cut(creator, " in goroutine ")
			by = fmt.Sprintf(" started by %s", creator)
			function = lines[len(lines)-4]
		}
		if open := strings.LastIndexByte(function, '('); open > 0 {
			function = function[:open]
		}
		place, _, _ = strings.Cut(place, " +0x")
		out = append(out, fmt.Sprintf("goroutine %s%s at %s", function, by, place))
	}
	return out
}
