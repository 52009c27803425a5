package nodes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"
)

// v2 is a cgroup of version 2.
type v2 struct {
	manager *cgroup2.Manager
	dir     *os.File
}

func newV2(mount, name string, profile Profile, journal Journal) (*Cgroup, error) {
	_, own, err := cgroups.ParseCgroupFileUnified("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	base, err := delegated(mount, own)
	if err != nil {
		return nil, err
	}
	group := filepath.Join(base, name)
	path := filepath.Join(mount, group)
	if err := record(journal, []string{path}); err != nil {
		return nil, err
	}
	quota, every := profile.quota().Microseconds(), uint64(period.Microseconds())
	manager, err := cgroup2.NewManager(mount, group, &cgroup2.Resources{CPU: &cgroup2.CPU{Max: cgroup2.NewCPUMax(&quota, &every)}})
	if err != nil {
		return nil, errors.Join(refused(err), discard(journal, []string{path}))
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, errors.Join(err, discard(journal, []string{path}))
	}
	return &Cgroup{paths: []string{path}, control: &v2{manager, dir}, journal: journal}, nil
}

// delegated finds, from own upwards, the first cgroup in which we may make children that have the CPU controller. One
// that has processes of its own cannot have such children, but for the root (the kernel's "no internal processes").
func delegated(mount, own string) (string, error) {
	var reasons []string
	for dir := filepath.Join("/", own); ; dir = filepath.Dir(dir) {
		path := filepath.Join(mount, dir)
		read := func(file string) []string {
			b, _ := os.ReadFile(filepath.Join(path, file))
			return strings.Fields(string(b))
		}
		may := func(file string) bool { return unix.Access(filepath.Join(path, file), unix.W_OK) == nil }
		enabled := slices.Contains(read("cgroup.subtree_control"), "cpu")
		_, err := os.Lstat(filepath.Join(path, "cgroup.type")) // the root has none
		switch {
		case !may(".") || !may("cgroup.procs"):
			reasons = append(reasons, dir+" is not delegated to this user")
		case !slices.Contains(read("cgroup.controllers"), "cpu"):
			reasons = append(reasons, dir+" has no controller cpu")
		case !enabled && !may("cgroup.subtree_control"):
			reasons = append(reasons, dir+" does not give the controller cpu to its children")
		case !enabled && err == nil && len(read("cgroup.procs")) > 0:
			reasons = append(reasons, dir+" has processes of its own")
		default:
			return dir, nil
		}
		if dir == "/" {
			return "", fmt.Errorf("%w: %s; run as root, or: systemd-run --user --scope -p Delegate=yes pqlab …",
				ErrNoCgroup, strings.Join(reasons, ", "))
		}
	}
}

// enter has the kernel clone the child into the cgroup.
func (c *v2) enter(attr *syscall.SysProcAttr) (func() error, error) {
	attr.UseCgroupFD, attr.CgroupFD = true, int(c.dir.Fd())
	return func() error { return nil }, nil
}

func (c *v2) cap(quota, period time.Duration) error {
	q, p := quota.Microseconds(), uint64(period.Microseconds())
	return c.manager.Update(&cgroup2.Resources{CPU: &cgroup2.CPU{Max: cgroup2.NewCPUMax(&q, &p)}})
}

func (c *v2) cpu() (CPU, error) {
	stat, err := c.manager.StatFiltered(cgroup2.StatCPU)
	if err != nil {
		return CPU{}, err
	}
	return CPU{
		User:   time.Duration(stat.CPU.UserUsec) * time.Microsecond,
		System: time.Duration(stat.CPU.SystemUsec) * time.Microsecond,
	}, nil
}

// kill uses cgroup.kill, which misses no process that is just being forked, where there is one (Linux 5.14).
func (c *v2) kill() error {
	err := os.WriteFile(filepath.Join(c.dir.Name(), "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return killAll(c.dir.Name())
	}
	return err
}

func (c *v2) close() error { return c.dir.Close() }
