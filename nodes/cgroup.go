package nodes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// ErrNoCgroup is wrapped by NewCgroup's error where the user may not make cgroups here, or the kernel has none. The lab
// can run all the same, without the cap.
var ErrNoCgroup = errors.New("no cgroup for the CPU cap")

// Journal records what outlives the process that made it, before it is made, so that the next start can remove it.
type Journal interface {
	Record(kind, path string) error
	Forget(kind, path string) error
}

// JournalKind is what Cgroup directories are recorded under.
const JournalKind = "cgroup"

// period is over which a cap holds: the kernel's default.
const period = 100 * time.Millisecond

// corePeriod is over which CapCore's holds.
const corePeriod = 10 * time.Millisecond

// Cgroup caps the CPU of one node's processes together. Start puts processes into it.
type Cgroup struct {
	paths   []string // its directories: one for each controller on version 1
	control control
	journal Journal
}

// control is what differs between the versions of cgroups.
type control interface {
	// enter makes the child that the calling thread is about to start begin inside; leave is called after the start.
	enter(*syscall.SysProcAttr) (leave func() error, err error)
	// cap changes the quota of each period.
	cap(quota, period time.Duration) error
	cpu() (CPU, error)
	kill() error
	close() error
}

// NewCgroup makes a cgroup for a node of a lab with the cap of the profile. It is recorded in the journal before it is
// made; its directories are named pqlab-PID-LAB-NODE. Version 2 is used where it has the CPU controller (unified
// mode), else version 1. Version 2 takes, from the caller's own cgroup upwards, the first that lets children have the
// CPU controller: without root that is one that was delegated, as by
// systemd-run --user --scope -p Delegate=yes.
func NewCgroup(lab, node string, profile Profile, journal Journal) (*Cgroup, error) {
	name := fmt.Sprintf("pqlab-%d-%s-%s", os.Getpid(), escape(lab), escape(node))
	var (
		c   *Cgroup
		err error
	)
	switch cgroups.Mode() {
	case cgroups.Unified:
		c, err = newV2("/sys/fs/cgroup", name, profile, journal)
	case cgroups.Legacy, cgroups.Hybrid:
		c, err = newV1(name, profile, journal)
	default:
		err = fmt.Errorf("%w: none are mounted at /sys/fs/cgroup", ErrNoCgroup)
	}
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node, err)
	}
	return c, nil
}

// escape makes a part of a directory name of anything.
func escape(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == '.' || r < ' ' {
			return '_'
		}
		return r
	}, s)
}

// record writes directories to the journal that are about to be made. None may be there yet: its remover is another.
func record(journal Journal, paths []string) error {
	for i, path := range paths {
		_, err := os.Lstat(path)
		if err == nil {
			err = fmt.Errorf("cgroup %s: %w", path, os.ErrExist)
		} else if errors.Is(err, os.ErrNotExist) {
			err = journal.Record(JournalKind, path)
		}
		if err != nil {
			return errors.Join(err, discard(journal, paths[:i]))
		}
	}
	return nil
}

// discard removes empty cgroup directories and forgets those that are gone.
func discard(journal Journal, paths []string) error {
	_, err := discardSome(journal, paths)
	return err
}

// discardSome is discard that also returns the directories that are left, so that another attempt forgets none twice.
func discardSome(journal Journal, paths []string) (left []string, err error) {
	var errs []error
	for _, path := range paths {
		err := unix.Rmdir(path)
		if err == nil || errors.Is(err, unix.ENOENT) {
			err = journal.Forget(JournalKind, path)
		} else {
			err = &os.PathError{Op: "remove cgroup", Path: path, Err: err}
			left = append(left, path)
		}
		errs = append(errs, err)
	}
	return left, errors.Join(errs...)
}

// refused turns the kernel's refusal to make a cgroup into ErrNoCgroup with a remedy.
func refused(err error) error {
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: %w; run as root", ErrNoCgroup, err)
	}
	return err
}

// enter is control's; a nil Cgroup is the caller's own.
func (c *Cgroup) enter(attr *syscall.SysProcAttr) (leave func() error, err error) {
	if c == nil {
		return func() error { return nil }, nil
	}
	return c.control.enter(attr)
}

// CapCore caps the processes together at what one core of the profile's device does, over so short a period that it holds
// for a computation of a moment too: NewCgroup's cap is of all cores, and lets pass what is done before a tenth of a second's
// quota is spent. For what computes in one thread. The kernel looks at its clock tick (1 to 10 ms) what was used: so much of a computation
// may pass uncapped.
func (c *Cgroup) CapCore(profile Profile) error {
	if err := c.control.cap(profile.coreQuota(), corePeriod); err != nil {
		return fmt.Errorf("cap of one core of %s: %w", profile.Name, err)
	}
	return nil
}

// CPU is what the processes of the cgroup have used, those that ended included.
func (c *Cgroup) CPU() (CPU, error) { return c.control.cpu() }

// Kill sends SIGKILL to every process of the cgroup, also to those that have left their group or session.
func (c *Cgroup) Kill() error { return c.control.kill() }

// removal is how long killed processes may take to leave a cgroup.
const removal = 5 * time.Second

// Remove kills what is still in the cgroup, removes it, and forgets it in the journal. What cannot be removed stays in
// the journal.
func (c *Cgroup) Remove() error {
	errClose := c.control.close()
	var err error
	for deadline := time.Now().Add(removal); ; time.Sleep(time.Millisecond) {
		c.paths, err = discardSome(c.journal, c.paths)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			break
		}
		if err := c.Kill(); err != nil {
			return errors.Join(err, errClose)
		}
	}
	return errors.Join(err, errClose)
}

// killAll sends SIGKILL to each process that a cgroup's directory lists.
func killAll(dir string) error {
	list, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, field := range strings.Fields(string(list)) {
		pid, err := strconv.Atoi(field)
		// 0 is a process of a PID namespace that is not below ours; our own is there while one of our threads starts a child.
		if err != nil || pid <= 0 || pid == os.Getpid() {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d of cgroup %s: %w", pid, dir, err)
		}
	}
	return nil
}
