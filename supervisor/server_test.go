package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// puppetLab has processes that exist in memory only.
type puppetLab struct{}

func (puppetLab) Status(context.Context) (Status, error) { return Status{}, nil }
func (puppetLab) Down(context.Context) error             { return nil }
func (puppetLab) SetLink(context.Context, string, string, []string) (LinkStatus, error) {
	return LinkStatus{}, nil
}
func (puppetLab) Capture(context.Context, CaptureRequest, func(CaptureNews)) (Capture, error) {
	return Capture{}, nil
}
func (puppetLab) Exec(context.Context, string, Command) (Process, error) {
	return &puppet{got: make(chan syscall.Signal, 100), end: make(chan struct{})}, nil
}

type puppet struct {
	got  chan syscall.Signal
	once sync.Once
	end  chan struct{}
}

func (p *puppet) Pid() int    { return 4711 }
func (p *puppet) Wait() error { <-p.end; return nil }
func (p *puppet) Signal(s syscall.Signal) error {
	select {
	case p.got <- s:
	default:
	}
	if s == syscall.SIGKILL {
		p.once.Do(func() { close(p.end) })
	}
	return nil
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s := serve(t, &fakeLab{})
	got, err := dial(t, s.name).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, _ := s.lab.Status(t.Context())
	want.State, want.PID, want.UID = Running, os.Getpid(), os.Geteuid()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var back Status
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, want) {
		t.Errorf("from JSON: %+v, %v", back, err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	a, b := serve(t, &fakeLab{}), serve(t, &fakeLab{})
	mute := unique(t) // nobody accepts
	l, err := claim(mute)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	entries, err := List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]Entry{}
	for _, e := range entries {
		seen[e.Name] = e
	}
	for _, name := range []string{a.name, b.name} {
		if e := seen[name]; e.Err != nil || e.Status.State != Running || e.PID != os.Getpid() || len(e.Status.Nodes) != 2 {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if e := seen[mute]; e.Err == nil || e.PID != os.Getpid() {
		t.Errorf("a lab that does not answer: %+v", e)
	}
}

func TestDialUnknown(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"no-such-lab", fmt.Sprintf("%d/no-such-lab", os.Geteuid())} {
		if _, err := Dial(t.Context(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "a b", "x/y", "-1/pair", "1/2/3"} {
		if _, err := Dial(t.Context(), name); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDownPassesAllErrorsOn(t *testing.T) {
	t.Parallel()
	one, two := errors.New("cgroup n1: busy"), fmt.Errorf("link: %w", os.ErrPermission)
	s := serve(t, &fakeLab{downErr: errors.Join(one, errors.Join(two))})
	c := dial(t, s.name)
	err := c.Down(t.Context())
	if err == nil || len(split(err)) != 2 || !errors.Is(err, os.ErrPermission) ||
		!strings.Contains(err.Error(), one.Error()) || !strings.Contains(err.Error(), two.Error()) {
		t.Errorf("got %v", err)
	}
	if listening(t, s.name) {
		t.Error("the socket is still there")
	}
	if err := <-s.done; !errors.Is(err, one) || !errors.Is(err, two) {
		t.Errorf("Serve: %v", err)
	}
	if err := c.Down(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	if n := s.lab.downs.Load(); n != 1 {
		t.Errorf("Lab.Down was called %d times", n)
	}
}

func TestDownTogether(t *testing.T) {
	t.Parallel()
	s := serve(t, &fakeLab{})
	c := dial(t, s.name)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := c.Down(t.Context()); err != nil {
				t.Error(err)
			}
			if listening(t, s.name) {
				t.Error("Down returned before the lab was gone")
			}
		})
	}
	wg.Wait()
	if n := s.lab.downs.Load(); n != 1 {
		t.Errorf("Lab.Down was called %d times", n)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := serve(t, &fakeLab{})
	c := dial(t, s.name)
	script, arg := sleeper(t)
	status := make(chan int, 1)
	go func() {
		n, err := c.Exec(t.Context(), "n1", sh(script))
		if err != nil {
			t.Error(err)
		}
		status <- n
	}()
	eventually(t, "the command runs", func() bool { return len(withArg(t, arg)) > 0 })
	s.stop()
	if n := <-status; n != 128+int(syscall.SIGHUP) {
		t.Errorf("exit status %d", n)
	}
	if err := <-s.done; err != nil || s.lab.downs.Load() != 1 {
		t.Errorf("%v, %d times down", err, s.lab.downs.Load())
	}
}

// A start that takes its time can be seen, and ended.
func TestWhileStarting(t *testing.T) {
	t.Parallel()
	name := unique(t)
	l, err := claim(name)
	if err != nil {
		t.Fatal(err)
	}
	s := server{listener: l, name: name, grace: time.Second}
	done := make(chan error, 1)
	go func() {
		done <- s.run(context.Background(), func(ctx context.Context) (Lab, error) {
			<-ctx.Done()
			return nil, errors.Join(ctx.Err(), errors.New("something stuck"))
		}, nil)
	}()
	c := dial(t, name)
	if st, err := c.Status(t.Context()); err != nil || st.State != Starting || st.Name != name {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := c.Exec(t.Context(), "n1", sh("true")); !errors.Is(err, ErrState) {
		t.Errorf("exec: %v", err)
	}
	if _, err := c.SetLink(t.Context(), "l1", "", []string{"delay=20ms", "loss=1%"}); !errors.Is(err, ErrState) {
		t.Errorf("link: %v", err)
	}
	if err := c.Down(t.Context()); err == nil || errors.Is(err, context.Canceled) || len(split(err)) != 1 {
		t.Errorf("down: %v", err)
	}
	<-done
}

func TestSetLink(t *testing.T) {
	t.Parallel()
	lab := &fakeLab{}
	s := serve(t, lab)
	c := dial(t, s.name)
	good := []string{"delay=20ms", "loss=1%"}
	for _, tt := range []struct {
		link, from string
		change     []string
		want       error
	}{
		{"l1", "", good, nil},
		{"l1", "n1", good, nil},
		{"l2", "", good, ErrNoLink},
		{"l1", "n9", good, ErrInput},
		{"l1", "", []string{"delay=20ms"}, ErrInput},
		{"l1", "", nil, ErrInput},
		{"l1", "slow", good, errors.ErrUnsupported},
	} {
		got, err := c.SetLink(t.Context(), tt.link, tt.from, tt.change)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s from %q, %q: %v, want %v", tt.link, tt.from, tt.change, err, tt.want)
		}
		if err == nil && (got.Name != tt.link || got.A != tt.from || got.FromB.Loss != 0.01) {
			t.Errorf("%s from %q: %+v", tt.link, tt.from, got)
		}
	}
	if n := lab.sets.Load(); n != 2 {
		t.Errorf("%d links set, want 2", n)
	}
}

// A supervisor that greets and does nothing more, or that does not end, is not waited for without limit.
func TestDownMute(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string]bool{"no answer": false, "no end": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := unique(t)
			l, err := claim(lab)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.AcceptUnix()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						send(c, greeting{Version: protocolVersion}, maxReply)
						var q request
						receive(c, &q, maxRequest, 0)
						if answers {
							send(c, reply{}, maxReply)
						}
						receive(c, &q, maxRequest, 0)
					}()
				}
			}()
			c := dial(t, lab)
			c.down = 20 * time.Millisecond
			ended := make(chan error, 1)
			go func() { ended <- c.Down(t.Context()) }()
			select {
			case err := <-ended:
				if !errors.Is(err, ErrMute) {
					t.Error(err)
				}
			case <-time.After(2 * time.Minute):
				t.Error("it waits")
			}
		})
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	s := serve(t, &fakeLab{})
	conn, err := dialSocket(t.Context(), address(os.Geteuid(), s.name))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var hello greeting
	if _, err := receive(conn, &hello, maxReply, 0); err != nil || hello.Version != protocolVersion {
		t.Fatalf("%+v, %v", hello, err)
	}
	send(conn, request{Version: protocolVersion + 1, Op: opStatus}, maxRequest)
	var r reply
	if _, err := receive(conn, &r, maxReply, 0); err != nil || len(r.Errors) != 1 || !errors.Is(fromWire(r.Errors[0]), ErrProtocol) {
		t.Errorf("%+v, %v", r, err)
	}

	// And a supervisor of another version, a babbling one, one that says nothing and goes.
	for text, want := range map[string]error{`{"version":9}`: ErrProtocol, `[]`: ErrProtocol, ``: nil} {
		name := unique(t)
		l, err := claim(name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if text != "" {
					send(c.(*net.UnixConn), json.RawMessage(text), maxReply)
				}
				c.Close()
			}
		}()
		_, err = dial(t, name).Status(t.Context())
		lost := (*LostError)(nil)
		if want != nil && !errors.Is(err, want) || want == nil && !errors.As(err, &lost) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestTooManyClients(t *testing.T) {
	t.Parallel()
	s := serve(t, &fakeLab{})
	var conns []*net.UnixConn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range maxClients {
		c, err := dialSocket(t.Context(), address(os.Geteuid(), s.name))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if _, err := receive(c, new(greeting), maxReply, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.client(t).Status(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	conns[0].Close()
	eventually(t, "a place is free", func() bool {
		_, err := s.client(t).Status(t.Context())
		return err == nil
	})
}

func (s served) client(t *testing.T) *Client {
	t.Helper()
	return dial(t, s.name)
}

// A Lab's refusals keep their meaning.
func TestExecRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, &fakeLab{})
	c := dial(t, s.name)
	plain := t.TempDir() + "/plain"
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, node string
		cmd        Command
		status     int
		is         error
	}{
		{"unknown node", "n9", sh("true"), ExitLost, ErrNoNode},
		{"not found in PATH", "n1", Command{Path: "no-such-program"}, ExitNotFound, exec.ErrNotFound},
		{"not found", "n1", Command{Path: "/no/such/program"}, ExitNotFound, os.ErrNotExist},
		{"not executable", "n1", Command{Path: plain}, ExitCannotExec, os.ErrPermission},
		{"no command", "n1", Command{}, ExitNotFound, exec.ErrNotFound},
		{"no directory", "n1", Command{Path: "sh", Dir: "/no/such/directory"}, ExitNotFound, os.ErrNotExist},
		{"too long", "n1", Command{Path: "sh", Args: []string{strings.Repeat("x", maxRequest)}}, ExitLost, ErrProtocol},
		{"no terminal", "n1", Command{Path: "sh", TTY: true}, ExitLost, nil},
	} {
		status, err := c.Exec(t.Context(), test.node, test.cmd)
		if status != test.status || err == nil || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %d, %v", test.name, status, err)
		}
	}
}

// A process that does not heed SIGHUP is killed when its client goes.
func TestHangUp(t *testing.T) {
	t.Parallel()
	s := &server{grace: time.Millisecond}
	p := &puppet{got: make(chan syscall.Signal, 100), end: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	if err := s.hangUp(p, ended); err != nil {
		t.Fatal(err)
	}
	for _, want := range []syscall.Signal{syscall.SIGHUP, syscall.SIGCONT, syscall.SIGKILL} {
		if got := <-p.got; got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// Clients that come, talk nonsense and go leave no goroutine behind.
func TestNothingGrows(t *testing.T) {
	s := serve(t, &fakeLab{})
	c := dial(t, s.name)
	use := func() {
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				switch i % 3 {
				case 0:
					if _, err := c.Status(t.Context()); err != nil {
						t.Error(err)
					}
				case 1:
					conn, err := dialSocket(t.Context(), address(os.Geteuid(), s.name))
					if err != nil {
						t.Error(err)
						return
					}
					conn.Write([]byte("\x00\x00\x00\x05{nons"))
					conn.CloseWrite()
					io.Copy(io.Discard, conn)
					conn.Close()
				case 2:
					if n, err := c.Exec(t.Context(), "n1", sh("exit 3")); n != 3 || err != nil {
						t.Error(n, err)
					}
				}
			})
		}
		wg.Wait()
	}
	descriptors := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	use()
	goroutines, fds := runtime.NumGoroutine(), descriptors()
	for range 5 {
		use()
	}
	eventually(t, "goroutines and descriptors are as before", func() bool {
		return runtime.NumGoroutine() <= goroutines && descriptors() <= fds
	})
}
