package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/vm/channel"
)

// serveMark makes the test binary run one command as a guest does, over descriptor 3: the part that takes no guest. It
// waits for all children, so it cannot be the test itself.
const serveMark = "PQLAB_TEST_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serveMark) != "" {
		os.Exit(serve())
	}
	os.Exit(m.Run())
}

func serve() int {
	port := os.NewFile(3, "port")
	in := channel.NewReader(port)
	_, data, err := in.Next()
	if err != nil {
		return 1
	}
	c, err := channel.Decode[channel.Command](data)
	if err != nil {
		return 1
	}
	if err := run(c, nil, channel.NewWriter(port), in); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// conversation is the host's side of a command.
type conversation struct {
	t   *testing.T
	out *channel.Writer
	in  *channel.Reader

	text    map[channel.Kind]*bytes.Buffer
	credit  int
	status  int // -1 until it has ended
	failure channel.Failure
}

// converse starts a command and returns when it runs, or could not be started.
func converse(t *testing.T, c channel.Command) *conversation {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), serveMark+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = []*os.File{theirs}
	var diagnostics bytes.Buffer
	cmd.Stderr = &diagnostics
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		ours.Close()
		if t.Failed() {
			_ = cmd.Process.Kill() // it may be waiting for a command that waits for it
		}
		if err := cmd.Wait(); err != nil && !t.Failed() {
			t.Errorf("the guest's side: %v: %s", err, &diagnostics)
		}
	})
	if err := ours.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	v := &conversation{
		t: t, out: channel.NewWriter(ours), in: channel.NewReader(ours), status: -1,
		text: map[channel.Kind]*bytes.Buffer{channel.Output: {}, channel.Errors: {}, channel.Screen: {}},
	}
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	if c.Env == nil {
		c.Env = os.Environ()
	}
	if err := v.out.Value(channel.Start, c); err != nil {
		t.Fatal(err)
	}
	if v.until(func(k channel.Kind) bool { return k == channel.Started || k == channel.Failed }) == channel.Failed {
		v.status = 1000
	}
	return v
}

// until reads until a frame is of the kind that is waited for, or what was said is.
func (v *conversation) until(found func(channel.Kind) bool) channel.Kind {
	v.t.Helper()
	for {
		kind, data, err := v.in.Next()
		if err != nil {
			v.t.Fatalf("%v; said so far: %q", err, v.text)
		}
		switch kind {
		case channel.Output, channel.Errors, channel.Screen:
			v.text[kind].Write(data)
		case channel.Credit:
			n, err := channel.Number(data)
			if err != nil {
				v.t.Fatal(err)
			}
			v.credit += n
		case channel.Exit:
			n, err := channel.One(data)
			if err != nil {
				v.t.Fatal(err)
			}
			v.status = int(n)
		case channel.Failed:
			if v.failure, err = channel.Decode[channel.Failure](data); err != nil {
				v.t.Fatal(err)
			}
		}
		if found(kind) {
			return kind
		}
	}
}

func (v *conversation) end() {
	v.t.Helper()
	v.until(func(k channel.Kind) bool { return k == channel.Exit })
}

func (v *conversation) says(kind channel.Kind, text string) {
	v.t.Helper()
	if !strings.Contains(v.text[kind].String(), text) {
		v.until(func(channel.Kind) bool { return strings.Contains(v.text[kind].String(), text) })
	}
}

func (v *conversation) send(kind channel.Kind, data ...byte) {
	v.t.Helper()
	if err := v.out.Write(kind, data); err != nil {
		v.t.Fatal(err)
	}
}

func sh(script string) channel.Command { return channel.Command{Args: []string{"sh", "-c", script}} }

func TestStatus(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]int{
		"true": 0, "exit 7": 7, "exit 255": 255, "kill -TERM $$": 143, "kill -KILL $$": 137, "kill -SEGV $$": 139,
		"sleep 2 & exit 3": 3, "(exit 9) & wait $!": 9,
		"(sleep 0.05; exit 4) & exit 5": 5, // the child that ends later is an orphan
	} {
		v := converse(t, sh(script))
		if v.end(); v.status != want {
			t.Errorf("%s: %d, want %d", script, v.status, want)
		}
	}
}

// All that was written arrives, on its own channel, also when the command has ended long before it was read, and when
// another still holds the pipe.
func TestOutput(t *testing.T) {
	t.Parallel()
	v := converse(t, sh("head -c 60000 /dev/zero; echo error >&2; sleep 2 & head -c 1000000 /dev/zero | tr '\\0' x; echo end"))
	v.end()
	want := strings.Repeat("\x00", 60000) + strings.Repeat("x", 1000000) + "end\n"
	if got := v.text[channel.Output].String(); got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	if got := v.text[channel.Errors].String(); got != "error\n" {
		t.Errorf("standard error %q", got)
	}
}

// What is still in the pipe when the command has ended, because the host is slow, arrives as well.
func TestLastWords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const size = 60_000 // at most one chunk of it waits for the host, the rest in the pipe, which could hold all
	c := sh(fmt.Sprintf("head -c %d /dev/zero; echo $$ > new; mv new pid", size))
	c.Dir = dir
	v := converse(t, c)
	deadline := time.Now().Add(2 * time.Minute)
	for {
		b, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err == nil {
			if _, err := os.Stat("/proc/" + strings.TrimSpace(string(b))); err != nil {
				break // ended, and waited for
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the command has not ended")
		}
		time.Sleep(time.Millisecond)
	}
	v.end()
	if got := v.text[channel.Output].Len(); got != size {
		t.Errorf("%d bytes, want %d", got, size)
	}
}

// Input arrives as it is, credit comes for all of it, and its end is one.
func TestInput(t *testing.T) {
	t.Parallel()
	v := converse(t, sh("cat"))
	want := bytes.Repeat([]byte{0, 1, 3, 4, 0xff, '\n', 0x1d}, 7000)
	for part := want; len(part) > 0; {
		n := min(len(part), 5000)
		v.send(channel.Input, part[:n]...)
		part = part[n:]
	}
	v.send(channel.Input)
	v.end()
	if got := v.text[channel.Output].Bytes(); !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	if v.credit != len(want) {
		t.Errorf("credit for %d bytes of %d", v.credit, len(want))
	}
}

// A command that does not read its input holds up no signal, and one that has closed it gives credit.
func TestUnreadInput(t *testing.T) {
	t.Parallel()
	v := converse(t, sh("trap 'echo got it; exit 6' USR1; echo ready; while :; do sleep 0.02; done"))
	v.says(channel.Output, "ready")
	for range channel.Window / 16384 {
		v.send(channel.Input, make([]byte, 16384)...)
	}
	v.send(channel.Signal, byte(unix.SIGUSR1))
	if v.end(); v.status != 6 || v.text[channel.Output].String() != "ready\ngot it\n" {
		t.Errorf("%d, %q", v.status, v.text[channel.Output])
	}
	v = converse(t, sh("exec <&-; echo closed; exec sleep 1000"))
	v.says(channel.Output, "closed")
	v.send(channel.Input, make([]byte, 30000)...)
	v.until(func(channel.Kind) bool { return v.credit == 30000 })
	v.send(channel.Signal, byte(unix.SIGTERM))
	v.end()
}

// The terminal's signals reach the command's children too, the others do not.
func TestSignals(t *testing.T) {
	t.Parallel()
	// The child has no traps, and so ends by the signal that reaches it.
	const script = "trap 'echo parent' %[1]s; env sh -c 'echo ready; exec sleep %[2]d'; echo child $?; exit 0"
	for s, reaches := range map[unix.Signal]bool{unix.SIGINT: true, unix.SIGHUP: true, unix.SIGTERM: false, unix.SIGUSR2: false} {
		seconds := map[bool]int{true: 1000, false: 3}[reaches] // long enough for the signal to come before the child ends by itself
		v := converse(t, sh(fmt.Sprintf(script, strings.TrimPrefix(unix.SignalName(s), "SIG"), seconds)))
		v.says(channel.Output, "ready")
		v.send(channel.Signal, byte(s))
		v.end()
		want := "child 0"
		if reaches {
			want = fmt.Sprintf("child %d", 128+int(s))
		}
		if got := v.text[channel.Output].String(); !strings.Contains(got, "parent") || !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q in it", s, got, want)
		}
	}
}

// Whom a signal goes to, as a pure function: a mistake here could reach everybody.
func TestTarget(t *testing.T) {
	t.Parallel()
	for s := unix.Signal(-1); s < 130; s++ {
		for _, pid := range []int{-5, -1, 0, 1} {
			if got := target(pid, s); got != 0 {
				t.Errorf("target(%d, %d) = %d", pid, s, got)
			}
		}
		got := target(77, s)
		want := 77
		if s == unix.SIGINT || s == unix.SIGQUIT || s == unix.SIGHUP {
			want = -77
		}
		if s < 1 || s > 64 {
			want = 0
		}
		if got != want {
			t.Errorf("target(77, %d) = %d, want %d", s, got, want)
		}
	}
}

// Only the first process of a guest is that, and only the guest's modprobe is one.
func TestRole(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		arg0 string
		pid  int
		mark string
		want string
	}{
		{"/init", 1, "1", "init"}, {"/init", 2, "1", ""}, {"/init", 1, "", ""}, {"/init", 1, "0", ""}, {"/sbin/init", 1, "1", ""}, {"pqlab", 1, "1", ""},
		{"/run/pqlab-guest/modprobe", 300, "", "modprobe"}, {"/sbin/modprobe", 300, "1", ""}, {"modprobe", 300, "", ""}, {"", 1, "1", ""},
	} {
		if got := role(c.arg0, c.pid, c.mark); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestNotStarted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		command channel.Command
		stage   channel.Stage
		status  int
	}{
		{channel.Command{Args: []string{"no-such-program"}}, channel.Exec, 127},
		{channel.Command{Args: []string{"./no-such-program"}, Dir: dir}, channel.Exec, 127},
		{channel.Command{Args: []string{"./data"}, Dir: dir}, channel.Exec, 126},
		{channel.Command{Args: []string{"./text"}, Dir: dir}, channel.Exec, 126},
		{channel.Command{Args: []string{dir}}, channel.Exec, 126},
		{channel.Command{Args: []string{"sh"}, Env: []string{"PATH=/nowhere"}}, channel.Exec, 127},
		{channel.Command{}, channel.Exec, 127},
		{channel.Command{Args: []string{"true"}, Dir: dir + "/gone"}, channel.Files, 0},
	} {
		v := converse(t, c.command)
		if v.failure.Stage != c.stage || v.failure.Status != c.status || v.failure.Text == "" {
			t.Errorf("%q: %+v", c.command.Args, v.failure)
		}
	}
}

// The command has the environment, the directory and the arguments that were sent, and nothing of ours.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	v := converse(t, channel.Command{
		Args: []string{"sh", "-c", `printf '%s|' "$@" "$A" "$PWD"; env | grep -c PQLAB_TEST`, "sh", "a b", "", "\xff\xfe"},
		Env:  []string{"PATH=" + os.Getenv("PATH"), "A=\xc3\xa4"}, Dir: dir,
	})
	v.end()
	if got, want := v.text[channel.Output].String(), "a b||\xff\xfe|\xc3\xa4|"+dir+"|0\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A terminal is one for those descriptors that are, with its size and settings, and Ctrl-C on it is a signal.
func TestTerminal(t *testing.T) {
	t.Parallel()
	script := `for fd in 0 1 2; do [ -t $fd ] && printf "$fd " >/dev/tty; done; stty size </dev/tty >/dev/tty; echo out; echo error >&2; trap 'stty size </dev/tty >/dev/tty' WINCH
trap 'echo int >/dev/tty; exit 11' INT; echo ready >/dev/tty; while :; do sleep 0.02; done`
	for _, c := range []struct {
		on                    [3]bool
		which, output, errors string
	}{
		{[3]bool{true, true, true}, "0 1 2 ", "", ""},
		{[3]bool{true, false, true}, "0 2 ", "out\n", ""},
		{[3]bool{true, false, false}, "0 ", "out\n", "error\n"},
		{[3]bool{false, true, true}, "1 2 ", "", ""},
	} {
		cmd := sh(script)
		cmd.Terminal = &channel.Terminal{On: c.on, Size: unix.Winsize{Row: 33, Col: 99}}
		v := converse(t, cmd)
		v.says(channel.Screen, "ready")
		if screen := v.text[channel.Screen].String(); !strings.HasPrefix(screen, c.which+"33 99\r\n") {
			t.Errorf("%v: %q", c.on, screen)
		}
		if err := v.out.Value(channel.Size, unix.Winsize{Row: 44, Col: 111}); err != nil {
			t.Fatal(err)
		}
		v.says(channel.Screen, "44 111")
		if c.on[0] {
			v.send(channel.Input, 3) // Ctrl-C
		} else {
			v.send(channel.Signal, byte(unix.SIGINT))
		}
		v.end()
		if v.status != 11 || !strings.HasSuffix(v.text[channel.Screen].String(), "int\r\n") {
			t.Errorf("%v: status %d, %q", c.on, v.status, v.text[channel.Screen])
		}
		if v.text[channel.Output].String() != c.output || v.text[channel.Errors].String() != c.errors {
			t.Errorf("%v: %q, %q", c.on, v.text[channel.Output], v.text[channel.Errors])
		}
	}
	// Its settings are those sent: no processing of output here.
	cmd := sh("stty -a | tr -d '\\n' | grep -o -- '-opost'; echo x")
	cmd.Terminal = &channel.Terminal{On: [3]bool{true, true, true}, Settings: &unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.B38400, Lflag: unix.ISIG}}
	v := converse(t, cmd)
	v.end()
	if got := v.text[channel.Screen].String(); got != "-opost\nx\n" {
		t.Errorf("%q", got)
	}
}

func TestShellStatus(t *testing.T) {
	t.Parallel()
	for n := range 256 {
		if got := shellStatus(unix.WaitStatus(n << 8)); int(got) != n {
			t.Errorf("exit %d: %d", n, got)
		}
	}
	for s := 1; s < 65; s++ {
		for _, core := range []int{0, 0x80} {
			if got := shellStatus(unix.WaitStatus(s | core)); int(got) != 128+s {
				t.Errorf("signal %d: %d", s, got)
			}
		}
	}
}

func TestCompanions(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"xfrm-type-2-50": true, "xfrm-type-10-50": true, "net-pf-16-proto-6": true, "net-pf-16-proto-61": false, "crypto-rfc4106(gcm(aes))": true,
		"net-sch-netem": false, "": false, "rtnl-link-xfrm": false,
	} {
		if got := len(companions([]string{name})) > 0; got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
