package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrForeign is of a path that cannot be pqlab's.
var ErrForeign = errors.New("it cannot be pqlab's")

// cgroupDeadline is how long RemoveCgroup waits for killed processes to be gone.
const cgroupDeadline = 5 * time.Second

// RemoveCgroup kills what runs in the cgroup whose directory is path and removes it. The cgroups inside it must have been
// removed before; in cgroup v1 a group has a path in each hierarchy, each to be removed.
//
// It refuses, with ErrForeign, a path that is not in a cgroup file system, and one that is neither named pqlab-… nor
// inside a group so named. A group that does not exist is no error.
func RemoveCgroup(path string) error {
	real, err := ownCgroup(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", path, err)
	}

	deadline := time.Now().Add(cgroupDeadline)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if err := emptyCgroup(real); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", path, err)
		}
		// Not os.Remove, which would say ENOTDIR of a file where rmdir says EBUSY of a group in use.
		err := unix.Rmdir(real)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: %w", path, err)
		}
		time.Sleep(pause)
	}
}

// ownCgroup returns the directory that path names if that can only be a cgroup of pqlab's. It changes nothing.
func ownCgroup(path string) (real string, err error) {
	// A hierarchy may be mounted at a link's target (cpu → cpu,cpuacct); there are no links inside one.
	if real, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	if !filepath.IsAbs(real) {
		return "", fmt.Errorf("it is not absolute: %w", ErrForeign)
	}
	// From the group up to the one named pqlab-… all must be cgroups, and the one above as well: what is named so is no
	// hierarchy's root, where the whole machine's processes are.
	named := false
	for dir := real; ; dir = filepath.Dir(dir) {
		var stat unix.Statfs_t
		if err := unix.Statfs(dir, &stat); err != nil {
			return "", err
		}
		if stat.Type != unix.CGROUP_SUPER_MAGIC && stat.Type != unix.CGROUP2_SUPER_MAGIC {
			return "", fmt.Errorf("no cgroup that it is in is named pqlab-…: %w", ErrForeign)
		}
		if named {
			return real, nil
		}
		named = strings.HasPrefix(filepath.Base(dir), "pqlab-")
	}
}

// emptyCgroup kills every process in the group but this one, which it moves to the group above.
func emptyCgroup(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil // it has just been removed
	}
	if err != nil {
		return err
	}
	for _, line := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(line)
		switch {
		case err != nil:
			return fmt.Errorf("process %q in cgroup.procs: %w", line, err)
		case pid == os.Getpid():
			if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "cgroup.procs"), []byte("0"), 0); err != nil {
				return err
			}
		case pid > 1: // 0 is one of another process namespace
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
	}
	return nil
}
