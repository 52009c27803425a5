// Package rootless gives a program the right to make network namespaces, by running it in a user namespace of its own
// where it has not got it.
package rootless

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"pqlab/internal/inherit"
)

// mark tells a process that it is the program run again: "PID USERNS", its parent and the user namespace that it left. It
// is checked against the kernel's view, so that a stray variable in somebody's environment changes nothing, and it is
// taken out of the environment at once.
const mark = "PQLAB_ROOTLESS"

// UnavailableError says why this machine lets the user make no network namespaces, and what would help.
type UnavailableError struct {
	Reason string
	Remedy string
	Err    error // what the kernel said
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("cannot make network namespaces as this user: %s (%v); %s", e.Reason, e.Err, e.Remedy)
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Is makes it errors.ErrUnsupported.
func (e *UnavailableError) Is(target error) bool { return target == errors.ErrUnsupported }

// Enter returns nil in a process that has CAP_SYS_ADMIN and CAP_NET_ADMIN, and so can make network namespaces. Call it
// first in main, or in TestMain.
//
// In a process that has not, Enter does not return unless it fails: it runs the program again (/proc/self/exe, same
// arguments, environment, directory and descriptors) in new user, network and mount namespaces, in which the user is
// root and lo is up, and there Enter returns nil. The process that called waits, passes signals on, and ends as that one
// ends: with its exit status, or by its signal. That one is killed when the caller is.
//
// Both are in one process group, so what the terminal sends (Ctrl-C, a new window size) and what kill sends to the group
// reaches both. The one that waits passes on only what was sent to it alone: the program gets every signal once.
//
// Where user namespaces are not allowed the error is an *UnavailableError.
func Enter() error {
	ppid, left, _ := strings.Cut(os.Getenv(mark), " ")
	os.Unsetenv(mark)
	now, err := os.Readlink("/proc/self/ns/user")
	inside := err == nil && now != left && ppid == strconv.Itoa(os.Getppid())

	able, err := capable()
	if err != nil {
		return err
	}
	switch {
	case able && inside:
		if err := loopbackUp(); err != nil {
			return diagnose(os.DirFS("/"), err)
		}
		return nil
	case able:
		return nil
	case inside:
		return diagnose(os.DirFS("/"), fmt.Errorf("no capabilities in the new user namespace: %w", unix.EPERM))
	}
	return reexec()
}

// capable tells whether the process has the capabilities that making and setting up a network namespace takes.
func capable() (bool, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false, fmt.Errorf("read capabilities: %w", err)
	}
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	return data[0].Effective&need == need, nil
}

// reexec runs the program inside new namespaces, waits for it and ends as it ends. It returns on failure only.
func reexec() error {
	// The child's parent-death signal comes when the thread that started it dies.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	left, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return diagnose(os.DirFS("/"), err)
	}
	files, err := inherit.All()
	if err != nil {
		return err
	}
	caught := catch()
	w, _ := newWitness() // without one, what is sent to the group arrives twice, which is better than not at all
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env:   append(os.Environ(), fmt.Sprintf("%s=%d %s", mark, os.Getpid(), left)),
		Files: files,
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
			// GidMappingsEnableSetgroups is false: an ordinary user may map its group only with setgroups denied.
		},
	})
	if err != nil {
		signal.Stop(caught)
		w.end()
		return diagnose(os.DirFS("/"), err)
	}
	wait(pid, caught, w)
	panic("unreachable")
}

// loopbackUp sets lo up in the network namespace of the process.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	return nil
}
