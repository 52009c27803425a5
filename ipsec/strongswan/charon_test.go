package strongswan

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pqlab/ipsec/strongswan/vici"
)

// inside marks the process in a network namespace of its own.
const inside = "PQLAB_TEST_CHARON"

// charon starts in mounts of its own, takes commands, ends when told, and leaves nothing. It needs no IPsec in the kernel.
func TestCharon(t *testing.T) {
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	i, err := Find(cache)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(inside) == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestCharon$", "-test.v")
		c.Env = append(os.Environ(), inside+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		}
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	mounts := func() string {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := mounts()
	for _, how := range []string{"told", "killed"} {
		p, err := start(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		c := vici.Client{Dial: p.dial}
		m, err := c.Call(t.Context(), "version", nil)
		if err != nil || m.Value("version") == "" {
			t.Errorf("version: %v", err)
		}
		d := &Daemon{client: c}
		public, id, err := d.newKey(t.Context())
		if err != nil || id == "" {
			t.Fatalf("key: %v", err)
		}
		tunnel := Tunnel{Policy: policy(), Limits: limits()}
		life, err := lifetimesOf(tunnel.Limits, true, 1438)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Call(t.Context(), "load-conn", connection(&tunnel, life, public, public)); err != nil {
			t.Errorf("load-conn: %v", err)
		}
		// What charon made of it.
		var seen *vici.Message
		if _, err := c.Stream(t.Context(), "list-conns", "list-conn", nil, func(m *vici.Message) { seen = m }); err != nil || seen == nil {
			t.Fatalf("list-conns: %v", err)
		}
		child := seen.Section("t").Section("children").Section("t")
		for key, want := range map[string]string{"mode": "TUNNEL", "rekey_time": "600", "rekey_packets": "888", "rekey_bytes": "0"} {
			if got := child.Value(key); got != want {
				t.Errorf("%s is %s, want %s", key, got, want)
			}
		}
		// Nobody is there to answer, as where the way between the ends is dead. What charon does not know it refuses at once.
		if err := d.initiate(t.Context(), "t", 700*time.Millisecond); !errors.Is(err, ErrSilent) {
			t.Errorf("a peer that is not there: %v", err)
		}
		if err := d.initiate(t.Context(), "unknown", time.Minute); !errors.Is(err, vici.ErrRefused) || errors.Is(err, ErrSilent) {
			t.Errorf("a tunnel that is not there: %v", err)
		}
		if _, err := os.Stat(configFile); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("charon's files are seen outside: %v", err)
		}
		if how == "told" {
			if err := p.stop(10 * time.Second); err != nil || !strings.Contains(p.ended.Error(), "exit status 0") {
				t.Errorf("stop: %v, %v", err, p.ended)
			}
		} else if err := p.stop(0); err != nil {
			t.Errorf("kill: %v", err)
		}
		if _, err := c.Call(t.Context(), "version", nil); err == nil {
			t.Error("it answers after its end")
		}
		if s := p.log.String(); !strings.Contains(s, "loaded plugins") {
			t.Errorf("log %q", s)
		}
		if now := mounts(); now != before {
			t.Errorf("mounts are left:\n%s", now)
		}
	}
	broken := filepath.Join(t.TempDir(), "charon")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho no such luck >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := start(t.Context(), Installation{Program: broken}); err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("a charon that ends at once: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := os.WriteFile(broken, []byte("#!/bin/sh\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := start(ctx, Installation{Program: broken}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a charon that is silent: %v", err)
	}
}
