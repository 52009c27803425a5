package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the user gets wrong is told before anything is started, and what the machine lacks has its own status.
func TestVMRefuses(t *testing.T) {
	clean(t)
	empty := t.TempDir()
	junk := filepath.Join(empty, "junk")
	if err := os.WriteFile(junk, []byte("no kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want int
		says string
	}{
		{"vm", exitUsage, "pqlab vm -- uname"}, {"vm uname", exitUsage, "--"}, {"vm uname -- -r", exitUsage, "--"}, {"vm --", exitUsage, "--"},
		{"vm --memory 12 -- true", exitUsage, "memory"}, {"vm --memory 5X -- true", exitUsage, "512M"}, {"vm --memory -1G -- true", exitUsage, "512M"},
		{"vm --cpus 1000 -- true", exitUsage, "CPUs"}, {"vm --accel xen -- true", exitUsage, "xen"}, {"vm --timeout -1s -- true", exitUsage, "timeout"},
		{"vm --share /no/such/dir -- true", exitUsage, "/no/such/dir"}, {"vm --share /proc -- true", exitUsage, "/proc"},
		{"vm fetch --kernel -- x", exitUsage, ""}, {"vm fetch more", exitUsage, ""},
		{"vm -- true", exitUnsupported, "pqlab vm fetch"}, {"vm --kernel linux-image-x -- true", exitUnsupported, "pqlab vm fetch --kernel linux-image-x"},
		{"vm --kernel " + junk + " -- true", exitUnsupported, "not a Linux kernel"}, {"vm --kernel /no/such/kernel -- true", exitUnsupported, "/no/such/kernel"},
		{"vm fetch", exitUnsupported, "apt"},
		{"test --mode vm combine", exitUnsupported, "pqlab vm fetch"}, {"test --mode vm --kernel " + junk + " combine", exitUnsupported, "not a Linux kernel"},
	} {
		cmd := command(t, strings.Fields(c.args)...)
		// Nothing is in the cache, and there is neither QEMU nor apt.
		cmd.Env = append(cmd.Env, "XDG_CACHE_HOME="+empty, "PATH="+empty)
		r := finish(t, cmd)
		if r.code != c.want || r.out != "" || !strings.Contains(r.err, c.says) {
			t.Errorf("%s: exit status %d, want %d: %s%s", c.args, r.code, c.want, r.out, r.err)
		}
	}
	if found, err := os.ReadDir(empty); err != nil || len(found) != 1 {
		t.Errorf("left in the cache: %v, %v", found, err)
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"1": 1, "512M": 512 << 20, "1G": 1 << 30, "2GiB": 2 << 30, "3K": 3 << 10, "0": 0,
		"": -1, "M": -1, "1T": -1, "1.5G": -1, "-1": -1, "1MM": -1, "99999999999999G": -1, "1 G": -1,
	} {
		got, err := parseSize(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

// needGuest skips where there can be no guest.
func needGuest(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a guest takes some seconds")
	}
	if r := pqlab(t, "vm", "--", "true"); r.code == exitUnsupported {
		t.Skipf("no guest: %s", r.err)
	} else if r.code != exitOK {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
}

// The command's status is pqlab's, and this very program runs in the guest.
func TestVM(t *testing.T) {
	needGuest(t)
	clean(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want := pqlab(t, "topologies")
	r := pqlab(t, "vm", "--timeout", "100s", "--", "sh", "-c", `"$0" topologies; echo error >&2; exit 7`, self)
	if r.code != 7 || r.out != want.out || r.err != "error\n" {
		t.Errorf("exit status %d: %s%s", r.code, r.out, r.err)
	}
}

// settings are a terminal's.
func settings(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

// On a terminal Ctrl-C goes to the command, which knows the terminal's size as it changes, and the terminal is as before
// afterwards.
func TestVMTerminal(t *testing.T) {
	needGuest(t)
	clean(t)
	master, slave := terminal(t)
	c := command(t, "vm", "--", "sh", "-c", `stty -echo; trap 'echo interrupted; exit 9' INT; trap 'stty size' WINCH; tty; stty size; echo ready; while :; do sleep 0.05; done`)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	resize := func(rows, columns uint16) {
		if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
			t.Fatal(err)
		}
	}
	resize(33, 99)
	before := settings(t, slave)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var screen bytes.Buffer
	await := func(text string) {
		b := make([]byte, 4096)
		if err := master.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		for !strings.Contains(screen.String(), text) {
			n, err := master.Read(b)
			screen.Write(b[:n])
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatalf("%v; on the screen: %q", err, &screen)
			}
		}
	}
	await("ready\r\n")
	if !strings.Contains(screen.String(), "/dev/pts/") {
		t.Errorf("no terminal: %q", &screen)
	}
	if !strings.Contains(screen.String(), "33 99\r\n") {
		t.Errorf("not its size: %q", &screen)
	}
	resize(44, 111)
	if err := c.Process.Signal(unix.SIGWINCH); err != nil { // the kernel's, were it the program's own terminal
		t.Fatal(err)
	}
	await("44 111\r\n")
	if _, err := master.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	await("interrupted")
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit status %d: %q", code, &screen)
	}
	if after := settings(t, slave); after != before {
		t.Errorf("settings %+v, were %+v", after, before)
	}
}
