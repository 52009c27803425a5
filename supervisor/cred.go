package supervisor

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// peer gives the credentials of the other side, mapped into this process's user namespace. On a client's side they are
// those of the process that called listen(2) last, on a server's side those of the one that called connect(2).
func peer(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	if credErr != nil {
		return nil, fmt.Errorf("SO_PEERCRED: %w", credErr)
	}
	return cred, nil
}

// identity is what a process knows about uids. In a user namespace the kernel shows every uid that is not mapped there
// as the overflow uid (65534), so that this one proves nothing; and in a rootless supervisor, which is uid 0 inside,
// the machine's root looks like any stranger (root's clients get in by connecting as the owner, see dialAs).
type identity struct {
	self     uint32
	overflow uint32
	complete bool // every uid is mapped: the overflow uid is a uid like any other
}

func whoAmI() (identity, error) {
	id := identity{self: uint32(os.Geteuid())}
	b, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return id, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return id, fmt.Errorf("/proc/sys/kernel/overflowuid: %w", err)
	}
	id.overflow = uint32(n)
	if b, err = os.ReadFile("/proc/self/uid_map"); err != nil {
		return id, err
	}
	// user_namespaces(7): the initial namespace maps all 2^32-1 uids.
	f := strings.Fields(string(b))
	id.complete = len(f) == 3 && f[0] == "0" && f[2] == "4294967295"
	return id, nil
}

func (id identity) known(uid uint32) bool { return uid != id.overflow || id.complete }

// is says whether uid is surely this process's own.
func (id identity) is(uid uint32) bool { return uid == id.self && id.known(uid) }

// serves says whether a lab of this process serves uid.
func (id identity) serves(uid uint32) bool { return id.is(uid) || uid == 0 && id.known(uid) }

func dialSocket(ctx context.Context, address string) (*net.UnixConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", address)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// dialAs connects with the effective uid of a lab's owner, which only root can. A rootless supervisor cannot tell root
// from a stranger; it can tell its owner.
func dialAs(ctx context.Context, address string, uid uint32) (*net.UnixConn, error) {
	type result struct {
		conn *net.UnixConn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		// The system call itself, not syscall.Setresuid, which changes all threads.
		keep := ^uintptr(0)
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); e != 0 {
			runtime.UnlockOSThread()
			done <- result{nil, fmt.Errorf("becoming user %d: %w", uid, e)}
			return
		}
		c, err := dialSocket(ctx, address)
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep); e == 0 {
			runtime.UnlockOSThread() // else the thread ends with this goroutine
		}
		done <- result{c, err}
	}()
	r := <-done
	return r.conn, r.err
}
