package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"

	"pqlab/run"
	"pqlab/supervisor"
)

// upLab makes a lab that is down again after the test.
func upLab(t *testing.T, args ...string) (name string) {
	t.Helper()
	name = fmt.Sprintf("cap-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)
	if r := pqlab(t, append([]string{"up", "--name", name}, args...)...); r.code != exitOK {
		t.Fatalf("up: %d, %s", r.code, r.err)
	}
	t.Cleanup(func() {
		c := exec.Command("/proc/self/exe", "down", name) // the test's context has ended
		c.Env = append(os.Environ(), mark+"=1")
		if out, err := c.CombinedOutput(); err != nil && c.ProcessState.ExitCode() != exitUsage { // that: it is down
			t.Errorf("down: %v: %s", err, out)
		}
	})
	return name
}

// send sends a datagram from a node of the pair through its tunnel; nobody listens.
func send(t *testing.T, lab, payload string) {
	t.Helper()
	if r := pqlab(t, "exec", lab, "a", "--", "bash", "-c", "printf %s "+payload+" >/dev/udp/10.255.0.2/9"); r.code != 0 {
		t.Fatalf("sending: %s", r.err)
	}
}

// rekeys counts those of a lab's tunnel.
func rekeys(t *testing.T, lab string) uint64 {
	t.Helper()
	return parse[supervisor.Status](t, pqlab(t, "ps", lab, "--json").out).Tunnels[0].Rekeys
}

// starts waits for the file of a capture, which has its place when the capture has begun.
func starts(t *testing.T, file string) {
	t.Helper()
	until(t, "the capture begins", func() bool { _, err := os.Stat(file); return err == nil })
}

// A capture in a pipe, and one that ends with its lab.
func TestCapturePipe(t *testing.T) {
	needLabs(t)
	clean(t)
	lab := upLab(t, "pair")
	r := pqlab(t, "capture", lab, "a-b", "-o", "-", "--rekey", "--count", "24")
	if r.code != exitOK {
		t.Fatalf("%d: %s", r.code, r.err)
	}
	file, err := pcapgo.NewNgReader(strings.NewReader(r.out), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		if _, _, err := file.ReadPacketData(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n != 24 || !strings.Contains(file.SectionInfo().Comment, "topology pair") || file.NInterfaces() != 2 {
		t.Errorf("%d packets, %d interfaces, %q", n, file.NInterfaces(), file.SectionInfo().Comment)
	}

	path := filepath.Join(t.TempDir(), "x.pcapng")
	c := command(t, "capture", lab, "-o", path, "--json")
	var out, diagnostics bytes.Buffer
	c.Stdout, c.Stderr = &out, &diagnostics
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	starts(t, path)
	if r := pqlab(t, "down", lab); r.code != exitOK {
		t.Errorf("down: %s", r.err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v: %s", err, &diagnostics)
	}
	if got := parse[run.Record](t, out.String()); got.Ended != "lab is down" {
		t.Errorf("%+v", got)
	}
}

// What cannot be captured is told, and leaves nothing.
func TestCaptureRefused(t *testing.T) {
	needLabs(t)
	clean(t)
	lab := upLab(t, "pair")
	dir := t.TempDir()
	file := filepath.Join(dir, "x.pcapng")
	if err := os.Mkdir(filepath.Join(dir, "x.wireshark"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x.wireshark", "preferences"), []byte("somebody's"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		code int
		args []string
	}{
		{exitUsage, []string{"no-such-lab"}},
		{exitUsage, []string{lab, "no-such-link"}},
		{exitUsage, []string{lab, "--files", "3"}},
		{exitUsage, []string{lab, "--files", "1", "--size", "1MB"}},
		{exitUsage, []string{lab, "--size", "10"}},
		{exitUsage, []string{lab, "--duration", "-1s"}},
		{exitUsage, []string{lab, "--snaplen", "-1"}},
		{exitUsage, []string{lab, "--count", "0"}},
		{exitUsage, []string{lab, "-o", "-", "--export-keys"}},
		{exitUsage, []string{lab, "-o", "-", "--json"}},
		{exitFailed, []string{lab, "--export-keys"}}, // the directory of the keys is somebody's
		{exitFailed, []string{lab, "-o", filepath.Join(dir, "no", "x.pcapng")}},
		{exitFailed, []string{lab, "-o", dir}},
		{exitUsage, nil},
	} {
		a := append([]string{"capture"}, tt.args...)
		if !slices.Contains(a, "-o") && len(tt.args) > 0 {
			a = append(a, "-o", file)
		}
		if r := pqlab(t, a...); r.code != tt.code || r.err == "" || r.out != "" {
			t.Errorf("%q: %d, want %d: %s%s", tt.args, r.code, tt.code, r.out, r.err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("%q: %v, %v", tt.args, entries, err)
		}
	}
	if r := pqlab(t, "run", "pair", "--export-keys"); r.code != exitUsage {
		t.Errorf("keys of no capture: %d", r.code)
	}
	if n := rekeys(t, lab); n != 0 {
		t.Errorf("%d rekeys for captures that never began", n)
	}
}
