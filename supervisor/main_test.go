package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/capture"
	"pqlab/internal/rootless"
)

// TestMain makes the test binary also the programs that the tests start: argv[1] says which.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		args := os.Args[2:]
		switch os.Args[1] {
		case "supervise":
			os.Exit(superviseMain(args))
		case "launch":
			os.Exit(launchMain(args))
		case "exec":
			os.Exit(execMain(args))
		case "ask":
			os.Exit(askMain(args))
		}
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // for the programs: a second for each would be minutes
	os.Exit(m.Run())
}

// superviseMain is a supervisor of a fake lab: MARKS MODE. What happens to the lab is marked by files in MARKS.
func superviseMain(args []string) int {
	marks, mode := args[0], args[1]
	if inner, ok := strings.CutPrefix(mode, "rootless-"); ok {
		mode = inner
		if err := rootless.Enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 3
		}
	}
	err := Run(func(ctx context.Context, progress func(string)) (Lab, error) {
		mark(marks, "starting")
		switch mode {
		case "fail":
			progress("one")
			progress("two")
			fmt.Println("words of the", "supervisor")
			return nil, exitError(3)
		case "panic":
			panic("in the middle of the start")
		case "vanish":
			os.Exit(9)
		case "hang":
			<-ctx.Done()
			mark(marks, "undone")
			return nil, ctx.Err()
		}
		fmt.Fprintln(os.Stderr, "lab is up")
		return &fakeLab{marks: marks}, nil
	}, func(err error) int {
		var e exitError
		if errors.As(err, &e) {
			return int(e)
		}
		return 1
	})
	if err != nil {
		return 1
	}
	return 0
}

type exitError int

func (e exitError) Error() string { return "this machine cannot" }

func mark(dir, name string) {
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
		panic(err)
	}
}

func marked(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// launchMain is pqlab up: NAME ARGS…
func launchMain(args []string) int {
	err := Launch(context.Background(), args[0], args[1:], time.Minute, func(string) {})
	var start *StartError
	if errors.As(err, &start) {
		return start.Exit
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// execMain is pqlab exec: LAB NODE tty|files PATH ARGS…
func execMain(args []string) int {
	ctx := context.Background()
	c, err := Dial(ctx, args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitLost
	}
	status, err := c.Exec(ctx, args[1], Command{Path: args[3], Args: args[4:], Env: os.Environ(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, TTY: args[2] == "tty"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return status
}

// askMain asks for a status as whoever it is: dial NAME, or raw ADDRESS without the client's own checks.
func askMain(args []string) int {
	ctx := context.Background()
	var err error
	if args[0] == "dial" {
		var c *Client
		if c, err = Dial(ctx, args[1]); err == nil {
			_, err = c.Status(ctx)
		}
	} else {
		var conn *net.UnixConn
		if conn, err = dialSocket(ctx, args[1]); err == nil {
			conn.SetDeadline(time.Now().Add(2 * time.Minute))
			s := session{Client: &Client{}, conn: conn, ctx: ctx}
			var hello greeting
			if _, err = receive(conn, &hello, maxReply, 1); err == nil && hello.Error != nil {
				err = fromWire(*hello.Error)
			} else if err == nil {
				_, err = s.ask(request{Op: opStatus}, 0)
			}
		}
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrDenied):
		return askDenied
	case errors.Is(err, ErrForeign):
		return askForeign
	case errors.Is(err, ErrNotFound):
		return askNotFound
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

const askDenied, askForeign, askNotFound = 10, 11, 12

// fakeLab runs commands in no namespace at all. Its nodes are n1, n2 and those of special behaviour.
type fakeLab struct {
	marks   string
	downErr error
	downs   atomic.Int32
	sets    atomic.Int32
	running sync.WaitGroup
}

func (l *fakeLab) Status(context.Context) (Status, error) {
	return Status{
		Name: "fake", Topology: "pair", Since: time.Unix(1e9, 0).UTC(),
		Nodes: []NodeStatus{{Name: "n1", Kind: "host", Addresses: []netip.Prefix{netip.MustParsePrefix("fd00::1/64")}, PID: 1, CPU: 0.5}, {Name: "n2", Kind: "dpu"}},
		Links: []LinkStatus{{Name: "l1", Kind: "fibre", A: "n1:eth0", B: "n2:eth0", Shaper: "tbf", FromA: ShapeStatus{Text: "rate 1Gbit/s", Rate: 1e9}, FromB: ShapeStatus{GilbertElliott: []float64{0.1, 0.2, 1, 0}}}},
		Tunnels: []TunnelStatus{{Name: "t1", A: "n1", B: "n2", Rekeys: 3, SAs: []SAStatus{{Node: "n1", Direction: "out", SPI: 4096, Packets: 7}},
			Drops: map[string]uint64{"replay": 1}}},
		WiFi: []WiFiCell{{AP: "n2", At: time.Second, Busy: time.Millisecond, Stations: []WiFiStation{{Name: "n1", Link: "l1", Distance: 5, Walls: 1,
			Up: WiFiDirection{SNR: 32.5, MCS: 9, Streams: 2, PHYRate: 866.7e6, Packets: 9, Bytes: 900, Delivered: 1, DeliveredBytes: 100, LostQueue: 2, LostRetries: 3,
				Queued: 3, PPDUs: 4, Collisions: 5, MPDUs: 6, Failed: 1, Retries: 8, Airtime: time.Microsecond},
			Down: WiFiDirection{MCS: 1, Streams: 1},
		}}}},
	}, nil
}

func (l *fakeLab) Exec(_ context.Context, node string, c Command) (Process, error) {
	switch node {
	case "n1", "n2":
	case "crash":
		go panic("the lab has a bug")
		select {}
	default:
		return nil, fmt.Errorf("node %q: %w", node, ErrNoNode)
	}
	l.running.Add(1)
	p := &fakeProcess{cmd: &exec.Cmd{Path: c.Path, Args: append([]string{c.Path}, c.Args...), Env: c.Env, Dir: c.Dir}, done: make(chan struct{})}
	for _, f := range []struct {
		from *os.File
		to   func(*os.File)
	}{{c.Stdin, func(f *os.File) { p.cmd.Stdin = f }}, {c.Stdout, func(f *os.File) { p.cmd.Stdout = f }}, {c.Stderr, func(f *os.File) { p.cmd.Stderr = f }}} {
		if f.from != nil {
			f.to(f.from)
		}
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: c.TTY, Setctty: c.TTY, Setpgid: !c.TTY}
	started := make(chan error)
	go func() {
		defer l.running.Done()
		runtime.LockOSThread() // the parent-death signal follows the thread
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.await()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// SetLink knows one link and what each of its errors is.
func (l *fakeLab) SetLink(_ context.Context, link, from string, change []string) (LinkStatus, error) {
	switch {
	case link != "l1":
		return LinkStatus{}, fmt.Errorf("%w: %q", ErrNoLink, link)
	case from == "slow":
		return LinkStatus{}, fmt.Errorf("delay: %w", errors.ErrUnsupported)
	case !slices.Equal(change, []string{"delay=20ms", "loss=1%"}) || from != "" && from != "n1":
		return LinkStatus{}, fmt.Errorf("%w: %q from %q", ErrInput, change, from)
	}
	l.sets.Add(1)
	return LinkStatus{Name: link, A: from, FromB: ShapeStatus{Loss: 0.01}}, nil
}

// Capture gives the request back as the comment, an end with a pipe for each link, and one piece of news.
func (l *fakeLab) Capture(ctx context.Context, q CaptureRequest, news func(CaptureNews)) (Capture, error) {
	out := Capture{Comment: fmt.Sprint(q), Links: len(q.Links)}
	for _, name := range q.Links {
		if name == "none" {
			out.close()
			return Capture{}, fmt.Errorf("%w: %q", ErrNoLink, name)
		}
		r, w, err := os.Pipe()
		if err != nil {
			return Capture{}, err
		}
		fmt.Fprint(w, name)
		w.Close()
		out.Ends = append(out.Ends, CaptureEnd{Name: name, Speed: 10, Socket: r})
	}
	l.running.Add(1)
	go func() {
		defer l.running.Done()
		news(CaptureNews{Secrets: &capture.Secrets{TLS: []byte("secret\n")}})
		<-ctx.Done()
		mark(l.marks, "captured")
	}()
	return out, nil
}

func (l *fakeLab) Down(context.Context) error {
	l.downs.Add(1)
	l.running.Wait()
	mark(l.marks, "down")
	return l.downErr
}

type fakeProcess struct {
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	err  error
}

func (p *fakeProcess) await() {
	waitForExit(p.Pid())
	p.mu.Lock()
	defer p.mu.Unlock()
	syscall.Kill(-p.Pid(), syscall.SIGKILL)
	p.err = p.cmd.Wait()
	close(p.done)
}

func (p *fakeProcess) Pid() int { return p.cmd.Process.Pid }

func (p *fakeProcess) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
		return syscall.Kill(-p.Pid(), s)
	}
}

func (p *fakeProcess) Wait() error { <-p.done; return p.err }

// unique makes a lab's name that no other test has.
func unique(t testing.TB) string {
	t.Helper()
	var b [6]byte
	if _, err := unix.Getrandom(b[:], 0); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("test-%x", b)
}

// eventually polls for something that another process does.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within two minutes: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// listening says whether a lab of that name has a socket, whoever owns it.
func listening(t testing.TB, name string) bool {
	t.Helper()
	found, err := sockets()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range found {
		if s.name == name {
			return true
		}
	}
	return false
}

// sleeper is a script that becomes a process that sleeps and has this argument.
func sleeper(t testing.TB) (script, arg string) {
	t.Helper()
	arg = "1000." + strconv.FormatUint(uint64(time.Now().UnixNano()), 10)
	return "exec sleep " + arg, arg
}

// withArg gives the processes that have this argument.
func withArg(t testing.TB, arg string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && bytes.Contains(append([]byte{0}, line...), []byte("\x00"+arg+"\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// served is a lab that this process serves.
type served struct {
	name string
	lab  *fakeLab
	stop context.CancelFunc
	done chan error
}

func serve(t *testing.T, lab *fakeLab) served {
	t.Helper()
	s := served{name: unique(t), lab: lab, done: make(chan error, 1)}
	l, err := claim(s.name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() {
		s.done <- Serve(ctx, l, lab)
		close(s.done)
	}()
	t.Cleanup(func() { cancel(); <-s.done })
	eventually(t, "the lab runs", func() bool {
		st, err := dial(t, s.name).Status(t.Context())
		return err == nil && st.State == Running
	})
	return s
}

func dial(t testing.TB, name string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// launched is a lab in a process of its own.
type launched struct {
	*Client
	marks string
}

func launch(t testing.TB) launched {
	t.Helper()
	name, marks := unique(t), t.TempDir()
	if err := Launch(t.Context(), name, []string{"supervise", marks, "ok"}, time.Minute, nil); err != nil {
		t.Fatal(err)
	}
	c := dial(t, name)
	t.Cleanup(func() {
		if err := c.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return launched{c, marks}
}

// program is this binary in one of its other roles.
func program(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stderr = os.Stderr
	return cmd
}

func sh(script string) Command {
	return Command{Path: "sh", Args: []string{"-c", script}, Env: []string{"PATH=" + os.Getenv("PATH")}}
}

// output runs the script in node n1 and gives what it printed.
func output(t testing.TB, c *Client, script string) (string, int, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := sh(script)
	cmd.Stdout, cmd.Stderr = w, w
	text := make(chan string)
	go func() {
		var b strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			b.Write(buf[:n])
			if err != nil {
				text <- b.String()
				return
			}
		}
	}()
	status, err := c.Exec(t.Context(), "n1", cmd)
	w.Close()
	return <-text, status, err
}
