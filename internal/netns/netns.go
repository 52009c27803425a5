// Package netns holds network namespaces by descriptors and is the only way into one.
//
// A namespace from New has no name in the file system: the kernel frees it, with every interface, SA and policy in it,
// when its last descriptor is closed and its last process has ended, however the owner died.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// ErrClosed is returned by the methods of a Namespace after its Close.
var ErrClosed = errors.New("network namespace is closed")

// UnavailableError says that this process can make no network namespace. It is errors.ErrUnsupported.
type UnavailableError struct {
	Err error // what the kernel said
}

func (e *UnavailableError) Error() string {
	remedy := "run as root, or where user namespaces are allowed"
	switch {
	case errors.Is(e.Err, unix.ENOSPC):
		remedy = "raise user.max_net_namespaces"
	case errors.Is(e.Err, unix.EINVAL):
		remedy = "it takes a kernel with CONFIG_NET_NS"
	}
	return fmt.Sprintf("new network namespace: %v; %s", e.Err, remedy)
}

func (e *UnavailableError) Unwrap() error        { return e.Err }
func (e *UnavailableError) Is(target error) bool { return target == errors.ErrUnsupported }

// Namespace is a network namespace. Its methods may be called from any goroutine.
type Namespace struct {
	inode uint64
	own   bool // the process's: every thread that was not led elsewhere is in it, and entering it would take a right

	mu     sync.Mutex // guards what follows, and Netlink's opening
	file   *os.File   // nil once closed
	handle *netlink.Handle
}

// New makes n namespaces, with three descriptors each. In each lo is up, nothing is forwarded, no reverse path is
// filtered, and no interface will wait for duplicate address detection, ask for routers or listen to them. It makes all
// or none.
//
// It needs CAP_SYS_ADMIN in the user namespace of the caller; a refusal is an *UnavailableError.
func New(n int) ([]*Namespace, error) {
	made := make([]*Namespace, n)
	workers := max(1, min(runtime.GOMAXPROCS(0), n))
	var g errgroup.Group
	for w := range workers {
		g.Go(func() error {
			// One thread makes many: what it leaves by unshare is kept by the descriptor that it has just opened.
			return OnThread(func() error {
				var loud []Sysctl
				for i := w; i < n; i += workers {
					if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
						return refused(err)
					}
					if i == w {
						loud = differing(quiet[:])
					}
					ns, err := prepare(loud)
					if err != nil {
						return fmt.Errorf("new network namespace: %w", err)
					}
					made[i] = ns
				}
				return nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		for _, ns := range made {
			if ns != nil {
				ns.Close()
			}
		}
		return nil, err
	}
	return made, nil
}

// refused tells what this machine does not allow from what went wrong.
func refused(err error) error {
	switch err {
	case unix.EPERM, unix.EINVAL, unix.ENOSYS, unix.ENOSPC, unix.EUSERS:
		return &UnavailableError{err}
	}
	return fmt.Errorf("new network namespace: %w", err)
}

// prepare makes the calling thread's new namespace what New promises, and holds it.
func prepare(params []Sysctl) (*Namespace, error) {
	if err := linkUp("lo"); err != nil {
		return nil, fmt.Errorf("lo up: %w", err)
	}
	if err := SetHere(params...); err != nil {
		return nil, err
	}
	ns, err := open()
	if err != nil {
		return nil, err
	}
	// While we are here: going back for it costs a thread.
	if ns.handle, err = openNetlink(); err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// Current opens the namespace that the calling process is in. Any user may.
func Current() (*Namespace, error) {
	var ns *Namespace
	err := OnThread(func() (err error) {
		if ns, err = open(); err == nil {
			ns.own = true
		}
		return err
	})
	return ns, err
}

// open opens the namespace of the calling thread.
func open() (*Namespace, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &Namespace{inode: st.Ino, file: f}, nil
}

// Do runs f inside the namespace, on a thread that runs nothing else and ends with f, and returns f's error. What f
// starts with go does not run inside the namespace; processes that it starts do.
func (ns *Namespace) Do(f func() error) error {
	file := ns.File()
	if file == nil {
		return fmt.Errorf("enter network namespace: %w", ErrClosed)
	}
	return OnThread(func() error {
		if ns.own {
			return f()
		}
		// Held as *os.File until here, so that Close cannot give the number to another file meanwhile.
		conn, err := file.SyscallConn()
		if err == nil {
			var errno error
			if err = conn.Control(func(fd uintptr) { errno = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err == nil {
				err = errno
			}
		}
		if err != nil {
			return fmt.Errorf("enter network namespace %d: %w", ns.inode, err)
		}
		return f()
	})
}

// OnThread runs f on a thread of its own, which ends with f: it is never the process's main thread.
func OnThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			finish(result, f)
			return
		}
		// Go cannot end the process's main thread: it would park it as f leaves it, inside the namespace, and so keep the
		// namespace for good. Occupy it until another thread has taken f.
		taken := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(taken)
			finish(result, f)
		}()
		<-taken
		runtime.UnlockOSThread()
	}()
	return <-result
}

// finish sends what f returns, also when f ends its goroutine.
func finish(result chan<- error, f func() error) {
	err := errors.New("ended its goroutine without returning")
	defer func() { result <- err }()
	err = f()
}

// Netlink returns the namespace's netlink handle (route and XFRM sockets). The Namespace keeps it and closes it.
//
// Never use the handle for another family, nor functions of package netlink that are not methods of a handle: they act
// on whatever namespace the thread happens to be in.
func (ns *Namespace) Netlink() (*netlink.Handle, error) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.file == nil {
		return nil, fmt.Errorf("open netlink: %w", ErrClosed)
	}
	if ns.handle != nil {
		return ns.handle, nil
	}
	file := ns.file
	err := OnThread(func() error {
		if !ns.own {
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace %d: %w", ns.inode, err)
			}
		}
		var err error
		ns.handle, err = openNetlink()
		return err
	})
	return ns.handle, err
}

// openNetlink opens netlink in the namespace of the calling thread.
func openNetlink() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_XFRM)
	if errors.Is(err, unix.EPROTONOSUPPORT) { // kernel without XFRM: then no request for it can go astray either
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
}

// File returns the open namespace, or nil after Close. The Namespace owns it.
func (ns *Namespace) File() *os.File {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return ns.file
}

// Fd returns the descriptor of File, or -1 after Close.
func (ns *Namespace) Fd() int {
	if f := ns.File(); f != nil {
		return int(f.Fd())
	}
	return -1
}

// Inode identifies the namespace among all that live.
func (ns *Namespace) Inode() uint64 { return ns.inode }

// Close gives the namespace up. The kernel frees it when nothing else is in it or holds it. A second Close does nothing.
func (ns *Namespace) Close() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.file == nil {
		return nil
	}
	if ns.handle != nil {
		ns.handle.Close()
		ns.handle = nil
	}
	err := ns.file.Close()
	ns.file = nil
	return err
}
