package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/vm/channel"
	"pqlab/internal/vm/guest"
)

// qemuProgram is QEMU's name.
const qemuProgram = "qemu-system-x86_64"

// spec is what QEMU is told.
type spec struct {
	accel  string
	kernel string // a path, as QEMU sees it
	initrd string
	memory int64 // bytes
	cpus   int   // 0: as many as are of use
	port   int   // the descriptor of the channel's end
	shares []channel.Share
}

// args are QEMU's arguments. q35, as microvm hangs now and then with two CPUs.
func (s spec) args() []string {
	// One thread for all processors: with one for each, QEMU 7.2 may run code that another processor has just patched
	// (static keys), and the kernel dies of it. So a second processor is of no use under TCG.
	// And QEMU 7.2's cmpxchg16b leaves an operand of an earlier comparison in the flags: an interrupt then brings back, say, the
	// flag that traps each instruction, and the kernel dies of a double fault. Without cx16 the kernel does not use it.
	accel, cpu := "tcg,thread=single", "max,-cx16"
	if s.accel == KVM {
		accel, cpu = "kvm", "host"
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-M", "q35,usb=off,sata=off,smbus=off,vmport=off", "-accel", accel, "-cpu", cpu,
		"-smp", strconv.Itoa(s.processors(runtime.NumCPU())), "-m", strconv.FormatInt((s.memory+1<<20-1)>>20, 10) + "M",
		"-kernel", s.kernel, "-initrd", s.initrd, "-append", commandLine,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-device", "virtio-serial-pci,max_ports=2", "-chardev", fmt.Sprintf("socket,id=port,fd=%d", s.port),
		"-device", "virtserialport,chardev=port,name=" + channel.Port,
	}
	args = append(args, share(guest.Tag, "/", true)...)
	for _, one := range s.shares {
		args = append(args, share(one.Tag, one.Path, false)...)
	}
	return args
}

// processors is how many the guest gets on a host with so many.
func (s spec) processors(host int) int {
	switch {
	case s.cpus > 0:
		return s.cpus
	case s.accel == KVM:
		return min(host, 4)
	}
	return 1
}

// share exports a directory. remap: the inode numbers of several file systems below it may be the same.
func share(tag, path string, readonly bool) []string {
	fsdev := "local,id=" + tag + ",path=" + strings.ReplaceAll(path, ",", ",,") + ",security_model=none,multidevs=remap"
	if readonly {
		fsdev += ",readonly=on"
	}
	return []string{"-fsdev", fsdev, "-device", "virtio-9p-pci,fsdev=" + tag + ",mount_tag=" + tag}
}

// commandLine is the kernel's. A kernel that goes wrong ends: panic=-1 restarts at once, which -no-reboot makes QEMU's end.
var commandLine = strings.Join([]string{
	"console=ttyS0", "panic=-1", "oops=panic", "loglevel=4",
	guest.Mark + "=1",
	// A guest that lives for one command needs no protection from it, and time is dear under TCG.
	"mitigations=off", "cryptomgr.notests", "audit=0", "8250.nr_uarts=1", "no_timer_check", "tsc=reliable",
	"random.trust_cpu=on", "rcupdate.rcu_expedited=1", "rcupdate.rcu_normal_after_boot=0",
}, " ")

// machine is a QEMU that runs.
type machine struct {
	conn    *os.File // our end of the channel
	console *tail
	stderr  *tail
	process *os.Process
	ended   chan struct{} // closed when QEMU has ended and been waited for
	err     error         // how; good after ended
	started time.Time
	accel   string
}

// start runs QEMU. files are for it, from descriptor 3 on; it gets its end of the channel before them.
func start(qemu string, s spec, files ...*os.File) (*machine, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make the channel: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "channel"), os.NewFile(uintptr(pair[1]), "channel")
	defer theirs.Close()
	m := &machine{conn: ours, console: newTail(64 << 10), stderr: newTail(4 << 10), ended: make(chan struct{}), started: time.Now(), accel: s.accel}
	c := exec.Command(qemu, s.args()...)
	c.Stdout, c.Stderr = m.console, m.stderr
	c.ExtraFiles = append([]*os.File{theirs}, files...)
	// A group of its own: what the terminal sends is for the command in the guest. And it dies with us.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.WaitDelay = time.Second
	running := make(chan error)
	go func() {
		// The parent-death signal is the thread's, so that one stays until QEMU has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.Start()
		running <- err
		if err == nil {
			m.err = c.Wait()
			close(m.ended)
		}
	}()
	if err := <-running; err != nil {
		ours.Close()
		return nil, err
	}
	m.process = c.Process
	return m, nil
}

// stop ends QEMU and waits for that. There is nothing in it to save.
func (m *machine) stop() {
	_ = m.process.Kill() // it may have ended
	<-m.ended
	m.conn.Close()
}

// firstDescriptor is the number in QEMU of the first of start's files.
const firstDescriptor = 4

// descriptor is the path at which a child opens one that it was given.
func descriptor(n int) string { return "/proc/self/fd/" + strconv.Itoa(n) }

// memory makes a file in memory: no other has it, and it is gone with its last descriptor.
func memory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory for %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// tail keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex
	b   []byte
	max int
}

func newTail(n int) *tail { return &tail{max: n} }

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if over := len(t.b) - t.max; over > 0 {
		t.b = slices.Delete(t.b, 0, over)
	}
	return len(b), nil
}

// text is what was kept, in lines.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(strings.ReplaceAll(string(t.b), "\r\n", "\n"), "?")
}

// QEMU returns its path. The error is an *Error.
func QEMU() (string, error) {
	if runtime.GOARCH != "amd64" { // this program is the guest's first process
		return "", &Error{Kind: ErrHost, Err: errors.New("guests are for x86-64, and this is " + runtime.GOARCH), Remedy: "run it on an x86-64 machine"}
	}
	path, err := exec.LookPath(qemuProgram)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return "", &Error{Kind: ErrQEMU, Err: err, Remedy: "apt-get install --no-install-recommends qemu-system-x86, as root; or make guest"}
	}
	return path, nil
}
