package supervisor

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// screen is a user's terminal, with what was printed on it.
type screen struct {
	master, slave *os.File
	mu            sync.Mutex
	text          bytes.Buffer
}

func newScreen(t *testing.T, rows, cols uint16) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := openSlave(master)
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{master: master, slave: slave}
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(s, master)
	}()
	t.Cleanup(func() {
		slave.Close()
		master.Close()
		<-read
		if t.Failed() {
			t.Logf("on the screen:\n%s", s.text.String())
		}
	})
	s.resize(t, rows, cols)
	return s
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *screen) shows(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), what)
}

func (s *screen) typed(t *testing.T, keys string) {
	t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

func (s *screen) resize(t *testing.T, rows, cols uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(s.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.Fatal(err)
	}
}

func (s *screen) modes(t *testing.T) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

// start runs pqlab exec on the screen, as a shell would.
func (s *screen) start(t *testing.T, lab, program_ string, args ...string) *exec.Cmd {
	t.Helper()
	c := program(append([]string{"exec", lab, "n1", "tty", program_}, args...)...)
	c.Stdin, c.Stdout, c.Stderr = s.slave, s.slave, s.slave
	c.Env = append(os.Environ(), "PS1=$ ", "TERM=dumb")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// An interactive shell: sizes, job control, Ctrl-C, the exit status, and the user's terminal as it was.
func TestTerminal(t *testing.T) {
	t.Parallel()
	l := launch(t)
	s := newScreen(t, 33, 101)
	before := s.modes(t)
	client := s.start(t, l.name, "bash", "--norc", "--noprofile", "-i")
	line := func(script, shows string) {
		t.Helper()
		s.typed(t, script+"\n")
		eventually(t, "on the screen: "+shows, func() bool { return s.shows(shows) })
	}
	// What is typed is echoed; the arithmetic tells the output from it.
	line("echo size $(stty size) $((1+1))", "size 33 101 2")
	if s.shows("no job control") {
		t.Error("the shell has no controlling terminal")
	}
	s.resize(t, 40, 132)
	line(`until stty size | grep -q '40 132'; do :; done; echo resized $((1+2))`, "resized 3")

	_, arg := sleeper(t)
	s.typed(t, "sleep "+arg+"\n")
	eventually(t, "the command runs", func() bool { return sleeping(t, arg) })
	s.typed(t, "\x03")
	eventually(t, "Ctrl-C ends it", func() bool { return len(withArg(t, arg)) == 0 })
	line("echo status $?", "status 130")

	s.typed(t, "sleep "+arg+"\n")
	eventually(t, "the command runs", func() bool { return sleeping(t, arg) })
	s.typed(t, "\x1a")
	line("kill %1; wait; echo jobs $((1+3))", "jobs 4")

	line("tty | grep -c /dev/pts/; echo own $((1+4))", "own 5")
	s.typed(t, "exit 7\n")
	client.Wait()
	if got := client.ProcessState.ExitCode(); got != 7 {
		t.Errorf("exit status %d", got)
	}
	if after := s.modes(t); !reflect.DeepEqual(before, after) {
		t.Errorf("the terminal's modes were %+v and are %+v", before, after)
	}
}

// All output arrives, also when a process stays behind that keeps the terminal open.
func TestTerminalOutput(t *testing.T) {
	t.Parallel()
	l := launch(t)
	for name, script := range map[string]string{
		"much":   "seq 1 20000; exit 5",
		"behind": "(trap '' HUP; exec sleep 3) & seq 1 20000; exit 5",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScreen(t, 24, 80)
			client := s.start(t, l.name, "sh", "-c", script)
			client.Wait()
			if got := client.ProcessState.ExitCode(); got != 5 {
				t.Errorf("exit status %d", got)
			}
			eventually(t, "the last line", func() bool { return s.shows("\r\n20000\r\n") })
		})
	}
}

// A client that is killed hangs its terminal up.
func TestTerminalClientKilled(t *testing.T) {
	t.Parallel()
	l := launch(t)
	s := newScreen(t, 24, 80)
	script, arg := sleeper(t)
	client := s.start(t, l.name, "sh", "-c", script)
	eventually(t, "the command runs", func() bool { return sleeping(t, arg) })
	client.Process.Kill()
	client.Wait()
	eventually(t, "the command ends", func() bool { return len(withArg(t, arg)) == 0 })
}

// When the supervisor dies the user gets the terminal back, and the defined exit status.
func TestTerminalSupervisorKilled(t *testing.T) {
	t.Parallel()
	l := launch(t)
	s := newScreen(t, 24, 80)
	before := s.modes(t)
	script, arg := sleeper(t)
	client := s.start(t, l.name, "sh", "-c", script)
	eventually(t, "the command runs", func() bool { return sleeping(t, arg) })
	syscall.Kill(l.pid, syscall.SIGKILL)
	client.Wait()
	if got := client.ProcessState.ExitCode(); got != ExitLost {
		t.Errorf("exit status %d", got)
	}
	if after := s.modes(t); !reflect.DeepEqual(before, after) {
		t.Error("the terminal is still raw")
	}
	eventually(t, "the command ends", func() bool { return len(withArg(t, arg)) == 0 })
}
