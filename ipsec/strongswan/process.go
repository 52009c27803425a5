package strongswan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// process is a charon with a mount namespace of its own, in which /run is in memory and holds its configuration and its
// socket, and in which strongSwan is in /usr. All of that goes with it, and it is killed with this process.
type process struct {
	calls chan func()   // run by the thread that is in the mount namespace
	done  chan struct{} // closed when charon has ended and been waited for
	ended error         // valid then
	child *os.Process
	log   *logbook
}

// In charon's own /run.
const (
	runDir     = "/run"
	configFile = runDir + "/strongswan.conf"
	viciSocket = runDir + "/charon.vici"
	readyFile  = runDir + "/ready"
)

// daemonConfig is strongswan.conf. Nothing is read from anywhere else. Log level 1 tells what happens and no secrets. Lost
// messages are repeated after half a second, then ever later.
var daemonConfig = fmt.Sprintf(`charon-systemd {
  load = random nonce openssl kdf pem pkcs1 pkcs8 pubkey kernel-netlink socket-default vici
  install_routes = no
  install_virtual_ip = no
  keep_alive = 0
  replay_window = %d
  delete_rekeyed_delay = %d
  retransmit_timeout = %g
  retransmit_base = %g
  retransmit_tries = %d
  journal {
    default = -1
  }
  filelog {
    stderr {
      default = 1
      time_format = %%H:%%M:%%S
      flush_line = yes
    }
  }
  plugins {
    vici {
      socket = unix://%s
    }
  }
}
`, replayWindow, ipsec.DefaultGrace/time.Second, firstWait.Seconds(), waitGrowth, repetitions, viciSocket)

// How charon repeats a message that is not answered, and how long it waits in all before it gives up.
const (
	firstWait   = 500 * time.Millisecond
	waitGrowth  = 1.8
	repetitions = 6
	persistence = 37 * time.Second // firstWait (1 + waitGrowth + waitGrowth² + … + waitGrowth⁶), less the fraction
)

// replayWindow in packets is that of the other dataplanes.
const replayWindow = 4096

// start runs charon in the network namespace and the cgroup of the caller, and returns when it takes commands.
func start(ctx context.Context, i Installation) (*process, error) {
	p := &process{calls: make(chan func()), done: make(chan struct{}), log: new(logbook)}
	ready := make(chan error, 1)
	go ownThread(func() {
		notified, err := p.prepare(i)
		if err == nil {
			err = p.fork(i)
		}
		if err != nil {
			ready <- errors.Join(fmt.Errorf("starting charon: %w", err), closeIf(notified))
			return
		}
		go func() { ready <- p.await(ctx, notified) }()
		for {
			select {
			case f := <-p.calls:
				f()
			case <-p.done:
				return
			}
		}
	})
	if err := <-ready; err != nil {
		if p.child != nil {
			err = errors.Join(err, p.stop(0))
		}
		return nil, err
	}
	return p, nil
}

// ownThread runs f in a thread that ends with it: it goes to another mount namespace, and charon dies with it. The main
// thread cannot end, and stands for the process in /proc; where the goroutine is in that, it is kept until f has another.
func ownThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	begun := make(chan struct{})
	go ownThread(func() {
		close(begun)
		f()
	})
	<-begun
	runtime.UnlockOSThread()
}

func closeIf(c *net.UnixConn) error {
	if c == nil {
		return nil
	}
	return c.Close()
}

// prepare moves the calling thread to a mount namespace with all that charon needs.
func (p *process) prepare(i Installation) (*net.UnixConn, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, fmt.Errorf("own mounts: %w", err)
	}
	if i.Root != "" { // the paths of its libraries and plugins are built in
		lower := filepath.Join(i.Root, "usr")
		if err := unix.Mount("overlay", "/usr", "overlay", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "lowerdir="+escape(lower)+":/usr"); err != nil {
			return nil, fmt.Errorf("%s over /usr by overlayfs (CONFIG_OVERLAY_FS; and an ordinary user may not where something is mounted below /usr; "+
				"root may, and an installed strongSwan does without): %w: %w", lower, errors.ErrUnsupported, err)
		}
	}
	if err := unix.Mount("tmpfs", runDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1m,mode=700"); err != nil {
		return nil, fmt.Errorf("own %s: %w", runDir, err)
	}
	if err := os.WriteFile(configFile, []byte(daemonConfig), 0o600); err != nil {
		return nil, err
	}
	return net.ListenUnixgram("unixgram", &net.UnixAddr{Name: readyFile, Net: "unixgram"})
}

// escape takes what overlayfs and mount(2) have a meaning for in a path.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(path)
}

// fork starts charon from the calling thread.
func (p *process) fork(i Installation) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	log, stderr, err := os.Pipe()
	if err != nil {
		return err
	}
	defer stderr.Close()
	p.child, err = os.StartProcess(i.Program, []string{i.Program}, &os.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "STRONGSWAN_CONF=" + configFile, "NOTIFY_SOCKET=" + readyFile},
		Files: []*os.File{null, stderr, stderr},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	})
	if err != nil {
		log.Close()
		return err
	}
	go func() {
		defer close(p.done)
		io.Copy(p.log, log) // until charon, which starts nothing, has ended
		log.Close()
		state, err := p.child.Wait()
		if err == nil {
			err = fmt.Errorf("charon ended: %v", state)
		}
		p.ended = err
	}()
	return nil
}

// patience is how long charon may take to start, on a machine that is emulated and busy.
const patience = 30 * time.Second

// await waits for charon to say that it is ready (sd_notify(3)).
func (p *process) await(ctx context.Context, notified *net.UnixConn) error {
	defer notified.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { notified.Close() })()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := readiness(notified)
	select {
	case <-p.done:
		return fmt.Errorf("%w; it says: %s", p.ended, p.log.last(3))
	default:
	}
	if err != nil {
		return fmt.Errorf("charon did not start: %w; it says: %s", context.Cause(ctx), p.log.last(3))
	}
	return nil
}

// readiness reads until charon says that it is ready; before it tells what it is at.
func readiness(notified *net.UnixConn) error {
	b := make([]byte, 4096)
	for {
		n, err := notified.Read(b)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				return nil
			}
		}
	}
}

// dial connects to charon's socket.
func (p *process) dial() (conn net.Conn, err error) {
	dialed := make(chan struct{})
	select {
	case p.calls <- func() { defer close(dialed); conn, err = net.Dial("unix", viciSocket) }:
		<-dialed
		return conn, err
	case <-p.done:
		return nil, p.ended
	}
}

// stop ends charon, which removes its SAs and policies, and kills it if that takes too long.
func (p *process) stop(patience time.Duration) error {
	if patience > 0 {
		if err := p.child.Signal(syscall.SIGTERM); err == nil {
			select {
			case <-p.done:
			case <-time.After(patience):
			}
		}
	}
	if err := p.child.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("charon: %w", err)
	}
	<-p.done
	return nil
}

// maxLog is how much of the beginning and of the end of charon's log is kept, in bytes each.
const maxLog = 64 << 10

// logbook keeps the beginning and the end of what charon writes.
type logbook struct {
	mu      sync.Mutex
	head    []byte
	tail    []byte
	skipped int
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(b)
	if room := maxLog - len(l.head); room > 0 {
		k := min(room, len(b))
		l.head, b = append(l.head, b[:k]...), b[k:]
	}
	l.tail = append(l.tail, b...)
	if over := len(l.tail) - maxLog; over > 0 {
		l.skipped += over
		l.tail = append(l.tail[:0], l.tail[over:]...)
	}
	return n, nil
}

// String is the log, with a line in the place of what was left out.
func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := string(l.head)
	if l.skipped > 0 {
		s += fmt.Sprintf("\n[%d bytes left out]\n", l.skipped)
	}
	return s + string(l.tail)
}

// last gives the last lines of the log, joined.
func (l *logbook) last(n int) string {
	lines := strings.Split(strings.TrimSpace(l.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
