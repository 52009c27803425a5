package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What Launch hands to Run.
const (
	nameVariable = "PQLAB_SUPERVISOR" // the lab's name
	listenerFD   = 3
	statusFD     = 4
)

// startMessage is what a starting supervisor tells its launcher. The last one has Ready or Error.
type startMessage struct {
	Progress string `json:"progress,omitempty"`
	Ready    bool   `json:"ready,omitempty"`
	Error    string `json:"error,omitempty"`
	Exit     int    `json:"exit,omitempty"`
}

// errOrphaned: the launcher went away before the lab was ready, so nobody waits for it.
var errOrphaned = errors.New("the command that started the lab is gone")

// Run is the life of a process that Launch started: it makes the lab with up, tells the launcher, serves clients, and
// takes the lab down on SIGTERM, SIGINT and SIGHUP, on a client's request, or when the launcher goes away before the
// lab is ready. A second signal ends the process at once. The context that up gets ends for the same reasons; up leaves
// nothing behind then. exitCode says what exit status the launcher shall have for an error of up.
//
// A process that re-executes itself (rootless) does so before Run, keeping descriptors 3 and 4 and the environment.
func Run(up func(ctx context.Context, progress func(string)) (Lab, error), exitCode func(error) int) error {
	name, ok := os.LookupEnv(nameVariable)
	if !ok {
		return errors.New("supervisor: not started by pqlab up; start a lab with that")
	}
	os.Unsetenv(nameVariable) // it is not for the children
	listener, err := inheritListener(name)
	if err != nil {
		return err
	}
	launcher, err := inheritLauncher()
	if err != nil {
		return err
	}
	defer launcher.Close()
	tell := func(m startMessage) error { return sendTimed(launcher, m) }
	fail := func(err error) error {
		tell(startMessage{Error: err.Error(), Exit: exitCode(err)})
		return err
	}
	log, shown, err := openLog()
	if err != nil {
		return fail(err)
	}
	defer log.Close()
	defer shown.Close()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ctx, restore := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	context.AfterFunc(ctx, restore)
	waiting, stopWaiting := context.WithCancel(ctx)
	defer stopWaiting()
	go func() {
		io.Copy(io.Discard, launcher) // nothing comes but the end
		if waiting.Err() == nil {
			cancel()
		}
	}()
	go trimRegularly(ctx, log)

	s := server{listener: listener, name: name, log: shown, grace: hangupGrace}
	ready := false
	err = s.run(ctx, func(ctx context.Context) (Lab, error) {
		return up(ctx, func(text string) { tell(startMessage{Progress: text}) })
	}, func() error {
		stopWaiting()
		if err := tell(startMessage{Ready: true}); err != nil {
			return errOrphaned
		}
		ready = true
		return launcher.Close()
	})
	if ready {
		return err
	}
	if err == nil {
		err = errors.New("it was taken down before it was up")
	}
	return fail(err)
}

// openLog opens the memory behind standard error, to trim it and, read-only, for clients.
func openLog() (log, shown *os.File, err error) {
	const path = "/proc/self/fd/2"
	if log, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return nil, nil, fmt.Errorf("opening the log: %w", err)
	}
	if shown, err = os.Open(path); err != nil {
		log.Close()
		return nil, nil, fmt.Errorf("opening the log: %w", err)
	}
	return log, shown, nil
}

// trimRegularly keeps the log from growing.
func trimRegularly(ctx context.Context, log *os.File) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			trimLog(log, logKept)
		case <-ctx.Done():
			return
		}
	}
}

// inheritListener takes the listener over. Its descriptor stays open until the process ends, so that the name is free
// only when everything that the process held is gone.
func inheritListener(name string) (*net.UnixListener, error) {
	unix.CloseOnExec(listenerFD)
	// Again, so that clients are shown this process and not the launcher (unix(7), SO_PEERCRED).
	if err := unix.Listen(listenerFD, unix.SOMAXCONN); err != nil {
		return nil, fmt.Errorf("supervisor: descriptor %d is no socket of a lab: %w", listenerFD, err)
	}
	bound, err := unix.Getsockname(listenerFD)
	if err != nil {
		return nil, err
	}
	if a, ok := bound.(*unix.SockaddrUnix); !ok || !strings.HasPrefix(a.Name, namespace) || !strings.HasSuffix(a.Name, "/"+name) {
		return nil, fmt.Errorf("supervisor: descriptor %d is not the socket of lab %s", listenerFD, name)
	}
	dup, err := unix.FcntlInt(listenerFD, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

func inheritLauncher() (*net.UnixConn, error) {
	unix.CloseOnExec(statusFD)
	f := os.NewFile(statusFD, "launcher")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("supervisor: descriptor %d: %w", statusFD, err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("supervisor: descriptor %d is no unix socket", statusFD)
	}
	return u, nil
}

func sendTimed(c *net.UnixConn, m startMessage) error {
	c.SetWriteDeadline(time.Now().Add(requestTimeout))
	return send(c, m, maxRequest)
}
