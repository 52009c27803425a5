package nodes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// v1 is a cgroup of version 1: a directory below our own for each of two controllers.
type v1 struct {
	cgroup cgroup1.Cgroup
	dirs   []string
}

func newV1(name string, profile Profile, journal Journal) (*Cgroup, error) {
	path := cgroup1.NestedPath(name)
	subsystems, err := controllers()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, s := range subsystems {
		p, err := path(s.Name())
		if err != nil {
			return nil, fmt.Errorf("%w: controller %s: %w", ErrNoCgroup, s.Name(), err)
		}
		// Controllers that are mounted together have one directory under two names.
		dir, err := filepath.EvalSymlinks(filepath.Dir(s.(interface{ Path(string) string }).Path(p)))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoCgroup, err)
		}
		if dir = filepath.Join(dir, name); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if err := record(journal, dirs); err != nil {
		return nil, err
	}
	quota, every := profile.quota().Microseconds(), uint64(period.Microseconds())
	cg, err := cgroup1.New(path, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &every}},
		cgroup1.WithHierarchy(controllers))
	if err != nil {
		return nil, errors.Join(refused(err), discard(journal, dirs))
	}
	return &Cgroup{paths: dirs, control: &v1{cgroup: cg, dirs: dirs}, journal: journal}, nil
}

// controllers are those that a CPU cap and its accounting need.
func controllers() ([]cgroup1.Subsystem, error) {
	all, err := cgroup1.Default()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	var ours []cgroup1.Subsystem
	for _, want := range []cgroup1.Name{cgroup1.Cpu, cgroup1.Cpuacct} {
		i := slices.IndexFunc(all, func(s cgroup1.Subsystem) bool { return s.Name() == want })
		if i < 0 {
			return nil, fmt.Errorf("%w: the kernel has no controller %s", ErrNoCgroup, want)
		}
		ours = append(ours, all[i])
	}
	return ours, nil
}

// enter moves the calling thread, and so what it forks, into the cgroup. Writing "0" for itself spares the wait for a
// grace period that moving another thread costs.
func (c *v1) enter(*syscall.SysProcAttr) (func() error, error) {
	move := func(where func(dir string) string) error {
		for _, dir := range c.dirs {
			if err := os.WriteFile(filepath.Join(where(dir), "tasks"), []byte("0"), 0); err != nil {
				return fmt.Errorf("move thread between cgroups: %w", err)
			}
		}
		return nil
	}
	leave := func() error { return move(filepath.Dir) }
	if err := move(filepath.Clean); err != nil {
		return nil, errors.Join(err, leave())
	}
	return leave, nil
}

func (c *v1) cap(quota, period time.Duration) error {
	// One after the other, so that what holds in between is never more than a cgroup above may allow.
	q, p := quota.Microseconds(), uint64(period.Microseconds())
	return errors.Join(
		c.cgroup.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &q}}),
		c.cgroup.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Period: &p}}),
	)
}

func (c *v1) cpu() (CPU, error) {
	stat, err := c.cgroup.Stat()
	if err != nil {
		return CPU{}, err
	}
	// The total is exact; how it is divided is known by clock ticks only.
	usage := stat.CPU.Usage
	cpu := CPU{User: time.Duration(usage.Total)}
	if ticks := usage.User + usage.Kernel; ticks > 0 {
		cpu.System = time.Duration(float64(usage.Total) * float64(usage.Kernel) / float64(ticks))
		cpu.User -= cpu.System
	}
	return cpu, nil
}

func (c *v1) kill() error { return killAll(c.dirs[0]) }

func (c *v1) close() error { return nil }
