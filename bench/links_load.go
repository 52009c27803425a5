package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Load is what kept the processors busy while links were measured.
type Load struct {
	Processes int     `json:"processes"`
	Cores     float64 `json:"cores"` // that they had, on average
}

// load keeps every processor busy.
type load struct {
	began    time.Time
	spinners []*exec.Cmd
}

// spin ends by itself soon after its parent.
const spin = `while kill -0 "$PPID" 2>/dev/null; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; done`

func startLoad(ctx context.Context) (*load, error) {
	l := &load{began: time.Now()}
	for range runtime.NumCPU() {
		c := exec.CommandContext(ctx, "/bin/sh", "-c", spin)
		if err := c.Start(); err != nil {
			_, _ = l.stop() // it is incomplete
			return nil, fmt.Errorf("a load: %w", err)
		}
		l.spinners = append(l.spinners, c)
	}
	return l, nil
}

// stop ends the load and says what it was. One that did not last until now is an error.
func (l *load) stop() (did Load, err error) {
	var used time.Duration
	for _, c := range l.spinners {
		_ = c.Process.Kill() // how it ended is seen next
		_ = c.Wait()
		if s := c.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
			err = errors.Join(err, fmt.Errorf("a load ended by itself: %v", c.ProcessState))
		}
		did.Processes++
		used += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	}
	did.Cores = used.Seconds() / time.Since(l.began).Seconds()
	return did, err
}
