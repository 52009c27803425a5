package vm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/vm/channel"
	"pqlab/internal/vm/guest"
	"pqlab/internal/vm/kernel"
)

// debian is a guest of Debian's kernel. Where there can be none, the test is skipped.
func debian(t testing.TB) Config {
	t.Helper()
	if testing.Short() {
		t.Skip("a guest takes some seconds")
	}
	if _, err := QEMU(); err != nil {
		t.Skipf("no guest: %v", err)
	}
	cache, err := kernel.UserCache()
	if err != nil {
		t.Skipf("no guest: %v", err)
	}
	k, err := cache.Find("")
	if err != nil {
		t.Skipf("no guest: %v", err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0"), Dir: dir, Kernel: k, Memory: 512 << 20, Accel: Auto, Cache: filepath.Dir(cache.Dir),
	}
}

// guestRun runs a script in a guest and returns its status and what it wrote.
func guestRun(t testing.TB, c Config, input []byte, script string) (status int, out, diagnostics string, err error) {
	t.Helper()
	c.Args = []string{"sh", "-c", script}
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	errR, errW := pipe(t)
	c.Stdin, c.Stdout, c.Stderr = inR, outW, errW
	go func() {
		_, _ = inW.Write(input)
		inW.Close()
	}()
	texts := [2]chan string{make(chan string, 1), make(chan string, 1)}
	for i, r := range []*os.File{outR, errR} {
		go func() {
			b, _ := io.ReadAll(r)
			texts[i] <- string(b)
		}()
	}
	start := time.Now()
	status, err = Run(t.Context(), c)
	t.Logf("took %v", time.Since(start))
	outW.Close()
	errW.Close()
	return status, <-texts[0], <-texts[1], err
}

// TestInstalled boots a kernel that is found below a root, as --kernel host finds the running one below /: where Debian puts
// its image and modules, it is the one in the cache.
func TestInstalled(t *testing.T) {
	c := debian(t)
	root, release := t.TempDir(), c.Kernel.Release
	for path, target := range map[string]string{"boot/vmlinuz-": c.Kernel.Image, "lib/modules/": c.Kernel.Modules} {
		path = filepath.Join(root, path+release)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if c.Kernel, err = kernel.Installed(root, release); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.Kernel.Image, root) || !strings.HasPrefix(c.Kernel.Modules, root) {
		t.Fatalf("it was found elsewhere: %+v", c.Kernel)
	}
	// A module of it is loaded, too.
	status, out, diagnostics, err := guestRun(t, c, nil, "uname -r && /run/pqlab-guest/modprobe sch_netem && cat /sys/module/sch_netem/refcnt")
	if err != nil || status != 0 || out != release+"\n0\n" {
		t.Errorf("status %d, %q, %q, %v", status, out, diagnostics, err)
	}
}

// TestGuest looks at everything that a command may expect, in one guest.
func TestGuest(t *testing.T) {
	c := debian(t)
	share, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c.Shares = []string{share}
	if err := os.WriteFile(filepath.Join(c.Dir, "given"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	unwritten := filepath.Join(os.TempDir(), "pqlab-written-in-a-guest")
	input := bytes.Repeat([]byte{0, 1, 2, 3, 4, '\r', '\n', 0xff}, 40_000)
	// Of each line the first word is what is looked at, the rest what was seen.
	script := `exec 2>/dev/null 3>&1 >"` + share + `/seen"
echo release $(uname -r)
echo pid1 $(tr '\0' ' ' </proc/1/cmdline)
echo given $(cat given)
echo root $(touch /etc/pqlab-x "` + unwritten + `" && echo writable)
echo lo $(cat /sys/class/net/lo/flags)
echo cgroup $(cat /sys/fs/cgroup/cgroup.subtree_control)
echo tun $(exec 4<>/dev/net/tun && cat /sys/class/misc/tun/dev)
echo pts $(ls /dev/pts)
echo fd $(echo through 3>/dev/null | cat /dev/fd/0)
echo shm $(touch /dev/shm/x && echo writable)
echo files $(ulimit -Hn)
echo modprobe $(cat /proc/sys/kernel/modprobe)
echo clock $(date +%s)
echo accel $` + guest.Accel + `
echo cx16 $(grep -cw cx16 /proc/cpuinfo)
echo dir $(pwd)
echo written > written
head -c 3000000 /dev/zero > big
sync
cat >&3
echo error >/proc/self/fd/9
exit 7`
	script = "exec 9>&2; " + script
	before := time.Now()
	status, out, diagnostics, err := guestRun(t, c, input, script)
	if status != 7 || err != nil {
		t.Fatal(status, err)
	}
	if out != string(input) {
		t.Errorf("%d bytes came back, want %d", len(out), len(input))
	}
	if diagnostics != "error\n" {
		t.Errorf("standard error %q", diagnostics)
	}
	text, err := os.ReadFile(filepath.Join(share, "seen"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		seen[name] = value
	}
	for name, want := range map[string]string{
		"release": c.Kernel.Release, "pid1": "/init", "given": "from the host", "root": "writable", "lo": "0x9", "tun": "10:200", "pts": "ptmx", "fd": "through",
		"shm": "writable", "files": "1048576", "modprobe": "/run/pqlab-guest/modprobe", "dir": c.Dir,
	} {
		if seen[name] != want {
			t.Errorf("%s: %q, want %q", name, seen[name], want)
		}
	}
	if seen["accel"] == TCG && seen["cx16"] != "0" {
		t.Error("the processor has cmpxchg16b, which QEMU 7.2 plays wrongly: kernels die of it now and then")
	}
	if got := seen["cgroup"]; !strings.Contains(got, "cpu") || !strings.Contains(got, "memory") {
		t.Errorf("cgroup controllers %q", got)
	}
	if got, err := time.ParseDuration(seen["clock"] + "s"); err != nil || got < time.Duration(before.Unix()-2)*time.Second || got > time.Duration(time.Now().Unix()+2)*time.Second {
		t.Errorf("clock %q, %v", seen["clock"], err)
	}
	for name, size := range map[string]int64{"written": 8, "big": 3_000_000} {
		if info, err := os.Stat(filepath.Join(c.Dir, name)); err != nil || info.Size() != size {
			t.Errorf("%s on the host: %v, %v", name, info, err)
		}
	}
	for _, path := range []string{"/etc/pqlab-x", unwritten} {
		if exists(path) {
			t.Errorf("%s was written on the host", path)
		}
	}
}

// The kernel loads what it is asked for: ESP with the processor's own AES, and a queue discipline.
func TestAutoload(t *testing.T) {
	c := debian(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip here")
	}
	status, out, _, err := guestRun(t, c, nil, `set -e; exec 2>&1
ip xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 1 reqid 1 mode tunnel aead 'rfc4106(gcm(aes))' 0x$(printf '%072d' 1) 128
ip xfrm state | grep -c rfc4106
ip link add v type veth && tc qdisc add dev v root netem delay 5ms && tc qdisc show dev v | grep -o netem
cut -d' ' -f1 /proc/modules | grep -c -e '^esp4$' -e '^aesni_intel$' -e '^sch_netem$'`)
	if status != 0 || err != nil || out != "1\nnetem\n3\n" {
		t.Errorf("%d, %v, %s", status, err, out)
	}
}

// A kernel that goes wrong says why, before and while the command runs.
func TestGuestDies(t *testing.T) {
	c := debian(t)
	_, _, _, err := guestRun(t, c, nil, "echo c > /proc/sysrq-trigger; sleep 100")
	var e *Error
	if !errors.Is(err, ErrDied) || !errors.As(err, &e) || !strings.Contains(e.Console, "sysrq triggered crash") {
		t.Errorf("%v", err)
	}
}

func TestKernelThatDoesNotBoot(t *testing.T) {
	c := debian(t)
	image, err := os.ReadFile(c.Kernel.Image)
	if err != nil {
		t.Fatal(err)
	}
	// The kernel's banner and all that is near it, gone: it starts, and stumbles.
	at := bytes.Index(image, []byte("Linux version "))
	if at < 0 {
		t.Fatal("no banner")
	}
	clear(image[max(0, at-1<<20) : at+1<<20])
	c.Kernel.Image = filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(c.Kernel.Image, image, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Accel, c.bootLimits = TCG, map[string]time.Duration{TCG: 5 * time.Second}
	_, _, _, err = guestRun(t, c, nil, "true")
	if !errors.Is(err, ErrBoot) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

// A directory that cannot be exported is QEMU's error, in its words.
func TestNoSuchShare(t *testing.T) {
	c := debian(t)
	first, err := initrd("/proc/self/exe", c.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	qemu, err := QEMU()
	if err != nil {
		t.Fatal(err)
	}
	s := spec{
		accel: TCG, kernel: c.Kernel.Image, initrd: descriptor(firstDescriptor), memory: c.Memory, port: firstDescriptor - 1,
		shares: []channel.Share{{Tag: "share0", Path: filepath.Join(t.TempDir(), "gone")}},
	}
	_, err = tryBoot(t.Context(), &c, qemu, s, 2*time.Minute, []*os.File{first})
	if !errors.Is(err, ErrQEMU) || !strings.Contains(err.Error(), "gone") {
		t.Errorf("%v", err)
	}
}

// A real QEMU dies with its starter, and leaves no file.
func TestGuestKilled(t *testing.T) {
	c := debian(t)
	c.Args = []string{"sh", "-c", "echo up; sleep 1000"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := pipe(t)
	c.Stdout = w
	ended := make(chan error, 1)
	go func() {
		_, err := Run(ctx, c)
		ended <- err
	}()
	if _, err := io.ReadFull(r, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	children := qemus(t)
	if len(children) != 1 {
		t.Fatalf("%d QEMUs", len(children))
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left := qemus(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// qemus are this process's children of that name.
func qemus(t testing.TB) (pids []string) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range strings.Fields(string(b)) {
			if name, err := os.Readlink("/proc/" + pid + "/exe"); err == nil && strings.Contains(filepath.Base(name), "qemu") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
