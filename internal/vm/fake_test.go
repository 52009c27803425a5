package vm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/vm/channel"
	"pqlab/internal/vm/kernel"
)

// The test binary is QEMU where it is called that. What it does is in these variables.
const (
	fakeMark = "PQLAB_TEST_QEMU"     // how it behaves
	fakePID  = "PQLAB_TEST_QEMU_PID" // a file for its number
	runMark  = "PQLAB_TEST_RUN"      // makes the test binary run a guest, until it is killed
)

// fake is QEMU and a guest.
func fake() {
	if path := os.Getenv(fakePID); path != "" {
		if err := os.WriteFile(path+".new", []byte(strconv.Itoa(os.Getpid())), 0o644); err == nil {
			_ = os.Rename(path+".new", path)
		}
	}
	port := os.NewFile(3, "port")
	out, in := channel.NewWriter(port), channel.NewReader(port)
	hello := func() channel.Command {
		_ = out.Value(channel.Hello, channel.Guest{Release: "6.12.9-test"})
		_, data, err := in.Next()
		if err != nil {
			os.Exit(1)
		}
		c, err := channel.Decode[channel.Command](data)
		if err != nil {
			os.Exit(1)
		}
		return c
	}
	mode := os.Getenv(fakeMark)
	if mode == "kvm hangs" {
		mode = "echo"
		if strings.Contains(strings.Join(os.Args, " "), "-accel kvm") {
			mode = "hang"
		}
	}
	switch mode {
	case "hang":
		time.Sleep(time.Hour)
	case "says no":
		fmt.Fprintln(os.Stderr, "qemu: there is no such device")
		os.Exit(1)
	case "panic":
		fmt.Println("Kernel panic - not syncing: no init")
	case "garbage":
		fmt.Fprint(port, "[    0.0] this is no frame")
		time.Sleep(time.Hour)
	case "dies":
		hello()
		_ = out.Write(channel.Started, nil)
		fmt.Println("Kernel panic - not syncing: out of memory")
	case "garbage later":
		hello()
		_ = out.Write(channel.Started, nil)
		_ = out.Write(channel.Hello, nil)
		time.Sleep(time.Hour)
	case "too much credit":
		hello()
		_ = out.Write(channel.Started, nil)
		for out.Write(channel.Credit, channel.Bytes(1)) == nil {
		}
	case "miser": // gives no credit, and says how much input comes all the same
		hello()
		_ = out.Write(channel.Started, nil)
		sizes := make(chan int)
		go func() {
			for kind, data, err := in.Next(); err == nil && kind == channel.Input; kind, data, err = in.Next() {
				sizes <- len(data)
			}
		}()
		total := 0
		for patience := 2 * time.Minute; ; {
			if total >= channel.Window {
				patience = 200 * time.Millisecond
			}
			select {
			case n := <-sizes:
				total += n
				continue
			case <-time.After(patience):
			}
			break
		}
		_ = out.Write(channel.Output, []byte(strconv.Itoa(total)))
		_ = out.Write(channel.Exit, []byte{0})
		time.Sleep(time.Hour)
	case "no files":
		hello()
		_ = out.Value(channel.Failed, channel.Failure{Stage: channel.Files, Text: "mount hostroot on /host (9p): no such device"})
		time.Sleep(time.Hour)
	case "no module":
		hello()
		_ = out.Value(channel.Failed, channel.Failure{Stage: channel.Modules, Text: "load module 9p.ko: invalid argument"})
		time.Sleep(time.Hour)
	case "no command":
		hello()
		_ = out.Value(channel.Failed, channel.Failure{Stage: channel.Exec, Text: "not found", Status: 127})
		time.Sleep(time.Hour)
	case "deaf":
		hello()
		_ = out.Write(channel.Started, nil)
		_ = out.Write(channel.Output, []byte("deaf\n"))
		time.Sleep(time.Hour)
	case "echo": // input, then the signal, which is the status
		c := hello()
		_ = out.Write(channel.Started, nil)
		_ = out.Write(channel.Errors, []byte(strings.Join(c.Args, " ")))
		for {
			kind, data, err := in.Next()
			switch {
			case err != nil:
				os.Exit(1)
			case kind == channel.Input && len(data) > 0:
				_ = out.Write(channel.Output, data)
				_ = out.Write(channel.Credit, channel.Bytes(len(data)))
			case kind == channel.Signal, kind == channel.Input:
				status := byte(0)
				if kind == channel.Signal {
					status = data[0]
				}
				_ = out.Write(channel.Exit, []byte{status})
				time.Sleep(time.Hour)
			}
		}
	}
	os.Exit(0)
}

// fakeKernel is a file that passes for a kernel as long as nobody boots it.
func fakeKernel(t testing.TB) kernel.Kernel {
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 200)...)
	binary.LittleEndian.PutUint16(b[18:], 62)
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return kernel.Kernel{Name: path, Release: "6.12.9-test", Image: path}
}

// pretend puts a QEMU of this behaviour into $PATH, and returns a guest's configuration and the file that has QEMU's
// number.
func pretend(t *testing.T, mode string) (Config, string) {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, qemuProgram)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv(fakeMark, mode)
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	pid := filepath.Join(t.TempDir(), "pid")
	t.Setenv(fakePID, pid)
	return Config{
		Args: []string{"a", "b"}, Dir: t.TempDir(), Kernel: fakeKernel(t), Memory: 512 << 20, Accel: TCG,
		bootLimits: map[string]time.Duration{TCG: 2 * time.Minute},
	}, pid
}

// gone fails the test if QEMU still runs, or never has.
func gone(t testing.TB, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("QEMU was never started: %v", err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil || pid <= 1 {
		t.Fatalf("number %q", b)
	}
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("QEMU is still there: %v", err)
	}
}

// Whatever a guest does wrong, there is an error of its kind, with something to do, in time, and QEMU is gone.
func TestBroken(t *testing.T) {
	for _, c := range []struct {
		mode    string
		want    error
		in      string // the error says
		limit   time.Duration
		timeout time.Duration
	}{
		{"hang", ErrBoot, "nothing was heard", time.Second, 0},
		{"says no", ErrQEMU, "no such device", 0, 0},
		{"panic", ErrBoot, "not syncing: no init", 0, 0},
		{"garbage", ErrBoot, "", 0, 0},
		{"dies", ErrDied, "out of memory", 0, 0},
		{"garbage later", ErrDied, "", 0, 0},
		{"too much credit", ErrDied, "", 0, 0},
		{"no files", ErrFiles, "hostroot", 0, 0},
		{"no module", ErrModules, "9p.ko", 0, 0},
		{"no command", ErrCommand, "not found", 0, 0},
		{"deaf", ErrTimeout, "", 0, time.Second},
		{"hang", ErrTimeout, "", 0, time.Second},
	} {
		t.Run(c.mode, func(t *testing.T) {
			config, pid := pretend(t, c.mode)
			if c.limit > 0 {
				config.bootLimits[TCG] = c.limit
			}
			config.Timeout = c.timeout
			start := time.Now()
			_, err := Run(t.Context(), config)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.in) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if errors.Is(err, errors.ErrUnsupported) && e.Remedy == "" {
				t.Errorf("nothing to do: %v", err)
			}
			if took := time.Since(start); took > 100*time.Second {
				t.Errorf("took %v", took)
			}
			if c.limit == 0 && c.timeout == 0 || exists(pid) { // under load it may not have come to that
				gone(t, pid)
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestNoQEMU(t *testing.T) {
	config, _ := pretend(t, "echo")
	t.Setenv("PATH", t.TempDir())
	_, err := Run(t.Context(), config)
	if !errors.Is(err, ErrQEMU) || !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, exec.ErrNotFound) {
		t.Error(err)
	}
}

// A directory without a kernel's modules is told before anything is started, with what is to be there.
func TestNoModules(t *testing.T) {
	config, pid := pretend(t, "echo")
	config.Kernel.Modules = t.TempDir()
	_, err := Run(t.Context(), config)
	var e *kernel.Error
	if !errors.As(err, &e) || e.Kernel != config.Kernel.Name || e.Remedy == "" || !errors.Is(err, os.ErrNotExist) || !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if exists(pid) {
		t.Error("QEMU was started")
	}
}

// A KVM that hangs costs its time once: the guest then boots without, and the next does so at once.
func TestKVMHangs(t *testing.T) {
	config, pid := pretend(t, "kvm hangs")
	if !usable() {
		t.Skip("no /dev/kvm here that could hang: attempts is tested by itself")
	}
	config.Accel, config.Cache, config.bootLimits[KVM] = Auto, t.TempDir(), 2*time.Second
	for i := range 2 {
		var said []string
		config.Say = func(s string) { said = append(said, s) }
		if status, err := Run(t.Context(), config); status != 0 || err != nil {
			t.Fatal(status, err)
		}
		if tried := strings.Contains(strings.Join(said, "\n"), "KVM"); tried != (i == 0) {
			t.Errorf("guest %d: %q", i, said)
		}
		gone(t, pid)
	}
	config.Accel = KVM
	if _, err := Run(t.Context(), config); !errors.Is(err, ErrKVM) || !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	gone(t, pid)
}

// pipe gives files to talk through.
func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// What goes in comes out, more than the window has room for, and each of the command's outputs on its own file.
func TestStreams(t *testing.T) {
	config, pid := pretend(t, "echo")
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	errR, errW := pipe(t)
	config.Stdin, config.Stdout, config.Stderr = inR, outW, errW
	want := strings.Repeat("0123456789abcde\n", 40*channel.Window/16)
	go func() {
		_, _ = io.WriteString(inW, want)
		inW.Close()
	}()
	got := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(outR)
		got <- string(b)
	}()
	status, err := Run(t.Context(), config)
	outW.Close()
	errW.Close()
	if status != 0 || err != nil {
		t.Fatal(status, err)
	}
	if text := <-got; text != want {
		t.Errorf("%d bytes, want %d", len(text), len(want))
	}
	if b, err := io.ReadAll(errR); string(b) != "a b" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	gone(t, pid)
}

// Input waits for credit, so that nothing behind it has to.
func TestCredit(t *testing.T) {
	config, pid := pretend(t, "miser")
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	config.Stdin, config.Stdout = inR, outW
	go func() { _, _ = inW.Write(make([]byte, 3*channel.Window)) }()
	status, err := Run(t.Context(), config)
	outW.Close()
	if status != 0 || err != nil {
		t.Fatal(status, err)
	}
	if b, err := io.ReadAll(outR); string(b) != strconv.Itoa(channel.Window) || err != nil {
		t.Errorf("%s bytes came without credit, want %d, %v", b, channel.Window, err)
	}
	gone(t, pid)
}

// Signals go to the command while it runs; before, they end the guest. So does the context at any time.
func TestSignals(t *testing.T) {
	config, pid := pretend(t, "echo")
	stdin, keep := pipe(t)
	defer keep.Close()
	config.Stdin = stdin
	signals := make(chan os.Signal, 1)
	config.Signals = signals
	config.Say = func(s string) {
		if s == "" {
			signals <- unix.SIGUSR1
		}
	}
	if status, err := Run(t.Context(), config); status != int(unix.SIGUSR1) || err != nil {
		t.Error(status, err)
	}
	gone(t, pid)

	config, _ = pretend(t, "hang")
	signals <- unix.SIGINT
	config.Signals = signals
	if _, err := Run(t.Context(), config); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	config, pid = pretend(t, "deaf")
	ctx, cancel := context.WithCancel(t.Context())
	config.Say = func(s string) {
		if s == "" {
			cancel()
		}
	}
	if _, err := Run(ctx, config); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	gone(t, pid)
}

// runFake runs a guest for a test that kills this process.
func runFake() int {
	k := os.Getenv(runMark)
	_, err := Run(context.Background(), Config{
		Args: []string{"sleep", "1000"}, Dir: os.TempDir(), Kernel: kernel.Kernel{Release: "x", Image: k}, Memory: 512 << 20, Accel: TCG,
	})
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// However this process ends, QEMU does too.
func TestKilled(t *testing.T) {
	config, pid := pretend(t, "hang")
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), runMark+"="+config.Kernel.Image)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return exists(pid) })
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() bool {
		state, err := os.ReadFile("/proc/" + string(b) + "/stat") // nobody may have waited for it yet
		return err != nil || strings.Contains(string(state), ") Z ")
	})
}

func until(t testing.TB, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within two minutes")
		}
	}
}
