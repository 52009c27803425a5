package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pqlab/probe"
)

// What could not be found out is told apart from what is not there, with the reason.
func TestDoctorTable(t *testing.T) {
	t.Parallel()
	c := newDoctor()
	var out bytes.Buffer
	c.SetOut(&out)
	if err := doctorTable(c, []probe.Capability{
		{Name: "there", Found: true},
		{Name: "seen", Found: true, Seen: "version 7"},
		{Name: "missing", Why: &probe.NotSupported{What: "missing", Err: unix.ENOENT}},
		{Name: "denied", Why: &probe.Failure{What: "denied", Err: fmt.Errorf("link: %w", unix.ENOMEM)}},
		{Name: "hung", Why: &probe.Failure{What: "hung", Err: context.DeadlineExceeded}},
		{Name: "odd", Why: errors.New("out of the ordinary")},
	}); err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(out.String()) {
		if name, rest, ok := strings.Cut(line, " "); ok && rows[name] == "" {
			rows[name] = strings.TrimSpace(rest)
		}
	}
	for name, want := range map[string]string{
		"there": "yes", "seen": "version 7", "missing": "no",
		"denied": "unknown: probe failed: link: " + unix.ENOMEM.Error(), "hung": "unknown: probe failed: " + context.DeadlineExceeded.Error(),
		"odd": "unknown: out of the ordinary",
	} {
		if rows[name] != want {
			t.Errorf("%s: %q, want %q", name, rows[name], want)
		}
	}
}

// doctor has a line for each thing that a user can get for pqlab: what is there, or else how to get it.
func TestDoctorRows(t *testing.T) {
	clean(t)
	type capability struct {
		Name, Why, Seen, Use string
		Found, Known         bool
	}
	doctor := func(cache string) map[string]capability {
		c := command(t, "doctor", "--json")
		c.Env = append(c.Environ(), "XDG_CACHE_HOME="+cache, "PATH="+t.TempDir())
		rows := map[string]capability{}
		for _, row := range parse[[]capability](t, finish(t, c).out) {
			rows[row.Name] = row
		}
		return rows
	}
	cache := t.TempDir()
	before := doctor(cache)
	for name, remedy := range map[string]string{
		"qemu": "qemu-system-x86", "guest kernel": "pqlab vm fetch", "strongswan": "pqlab vm fetch --strongswan",
	} {
		c, ok := before[name]
		if installed := name == "strongswan" && c.Found; !ok || !c.Known || c.Use == "" || !installed && (c.Found || !strings.Contains(c.Why, remedy)) {
			t.Errorf("%s: %+v", name, c)
		}
	}
	at := filepath.Join(cache, "pqlab", "strongswan", "9.9.9-1", "usr", "sbin", "charon-systemd")
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	if c := doctor(cache)["strongswan"]; !c.Found || !c.Known || !strings.Contains(c.Seen, "9.9.9-1") || !strings.Contains(c.Seen, cache) {
		t.Errorf("%+v", c)
	}
}
