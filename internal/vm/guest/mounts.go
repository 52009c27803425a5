package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/vm/channel"
	"pqlab/internal/vm/kernel"
)

// mount is one call of mount(2). Its directory is made if it is not there.
type mount struct {
	source, target, kind string
	flags                uintptr
	options              string
}

func (m mount) make() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
		return fmt.Errorf("mount %s on %s (%s): %w", m.source, m.target, m.kind, err)
	}
	return nil
}

// p9 are the options of all mounts of the host. Few large messages: each costs a switch to QEMU and back.
const p9 = "trans=virtio,version=9p2000.L,msize=512000"

// prepare makes the host's files the guest's, and the rest of what a program expects to find.
func prepare(c channel.Command) error {
	now := unix.NsecToTimeval(c.Time) // at once: it is the host's of a moment ago
	if err := unix.Settimeofday(&now); err != nil {
		return &failure{channel.Setup, fmt.Errorf("set the clock to %v: %w", time.Unix(0, c.Time), err), 0}
	}
	if err := root(); err != nil {
		return &failure{channel.Files, err, 0}
	}
	if err := kernelFiles(); err != nil {
		return &failure{channel.Setup, err, 0}
	}
	for _, s := range c.Shares {
		// Not cached: the host may change them meanwhile. mmap is, as it cannot be otherwise.
		m := mount{s.Tag, s.Path, "9p", 0, p9 + ",cache=mmap"}
		if err := m.make(); err != nil {
			return &failure{channel.Files, err, 0}
		}
	}
	if err := modules(c.Modules, c.Release, c.Preload); err != nil {
		return &failure{channel.Modules, err, 0}
	}
	if err := system(c); err != nil {
		return &failure{channel.Setup, err, 0}
	}
	return nil
}

// root puts an overlay in memory over the host's root and moves there. The kernel's own helpers, modprobe above all,
// move along, as they share the first process's root.
func root() error {
	if err := (mount{"tmpfs", "/over", "tmpfs", 0, "mode=0755"}).make(); err != nil {
		return err
	}
	for _, dir := range []string{"/over/upper", "/over/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, m := range []mount{
		{Tag, "/host", "9p", unix.MS_RDONLY, p9 + ",cache=loose"},
		{"overlay", "/root", "overlay", 0, "lowerdir=/host,upperdir=/over/upper,workdir=/over/work"},
		{"tmpfs", "/root/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"/" + filepath.Dir(Program), "/root" + Home, "", unix.MS_BIND, ""},
	} {
		if err := m.make(); err != nil {
			return err
		}
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	return os.Chdir("/")
}

// kernelFiles mounts what the kernel shows as files.
func kernelFiles() error {
	const safe = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	for _, m := range []mount{
		{"proc", "/proc", "proc", safe, ""},
		{"sysfs", "/sys", "sysfs", safe, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666,gid=5"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	} {
		if err := m.make(); err != nil {
			return err
		}
	}
	// Kernels without are of use as well; who needs them says so.
	if err := unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", safe, ""); err == nil {
		for _, controller := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
			_ = write("/sys/fs/cgroup/cgroup.subtree_control", "+"+controller)
		}
	}
	for _, dir := range []string{"/sys/kernel/debug debugfs", "/sys/kernel/tracing tracefs", "/sys/fs/bpf bpf"} {
		var path, kind string
		if _, err := fmt.Sscan(dir, &path, &kind); err == nil {
			_ = unix.Mount(kind, path, kind, safe, "")
		}
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(to, "/dev/"+name); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// Whoever opens it makes the kernel load the module.
	if err := os.MkdirAll("/dev/net", 0o755); err != nil {
		return err
	}
	if err := unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil && !errors.Is(err, fs.ErrExist) {
		return &os.PathError{Op: "mknod", Path: "/dev/net/tun", Err: err}
	}
	return os.Chmod("/dev/net/tun", 0o666)
}

// modules puts those of this kernel where they are looked for, and gives the kernel a modprobe that knows them.
func modules(dir, release string, preload []string) error {
	if dir == "" {
		return nil
	}
	if to := filepath.Join("/lib/modules", release); dir != to {
		if err := (mount{dir, to, "", unix.MS_BIND, ""}).make(); err != nil {
			return err
		}
	}
	err := write("/proc/sys/kernel/modprobe", Home+"/"+filepath.Base(Modprobe))
	if errors.Is(err, fs.ErrNotExist) { // a kernel that cannot load any
		return nil
	}
	if err != nil || len(preload) == 0 {
		return err
	}
	m, err := kernel.ReadModules(Home + "/" + filepath.Base(ModuleDir))
	if err != nil {
		return err
	}
	loadAll(filepath.Join("/lib/modules", release), m.Available(preload...))
	return nil
}

// files is how many a process of the guest may open at most, as distributions have it.
const files = 1 << 20

// system sets what distributions set when they start.
func system(c channel.Command) error {
	if err := unix.Sethostname([]byte("pqlab")); err != nil {
		return fmt.Errorf("set the host's name: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: files}); err != nil {
		return fmt.Errorf("set the limit of open files: %w", err)
	}
	if err := loopback(); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	// Commands often start this program again, and so does that: from memory it takes a tenth of the time. It is the
	// same program, and if another has taken its place meanwhile, the one that the guest belongs to.
	if c.Self != "" {
		_ = unix.Mount(Home+"/"+filepath.Base(Program), c.Self, "", unix.MS_BIND, "")
	}
	return nil
}

func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}

// write writes to a file of the kernel's.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
