package bench

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
)

// load keeps every processor busy.
type load struct{ spinners []*exec.Cmd }

// spin ends by itself soon after its parent.
const spin = `while kill -0 "$PPID" 2>/dev/null; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; done`

func startLoad(ctx context.Context) (*load, error) {
	l := &load{}
	for range runtime.NumCPU() {
		c := exec.CommandContext(ctx, "/bin/sh", "-c", spin)
		if err := c.Start(); err != nil {
			l.stop()
			return nil, fmt.Errorf("a load: %w", err)
		}
		l.spinners = append(l.spinners, c)
	}
	return l, nil
}

func (l *load) stop() {
	for _, c := range l.spinners {
		c.Process.Kill()
		c.Wait()
	}
}
