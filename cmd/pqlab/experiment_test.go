package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The smallest grid is measured for real, told as JSON, and reported.
func TestExperimentOverLinks(t *testing.T) {
	needLabs(t)
	clean(t)
	dir := filepath.Join(t.TempDir(), "out")
	r := pqlab(t, "experiment", "exchange-over-links", "--json", "--rates", "10Mbit/s", "--delays", "2ms", "--losses", "0,0.1%",
		"--suites", "falcon512+kyber512,mldsa44+mlkem512", "--devices", "none", "--repeats", "2", "--limit", "30s", "--dataplane", "gateway", "--report", dir)
	if r.code == exitUnsupported {
		t.Skip(r.err)
	}
	if r.code != exitOK || r.err != "" {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	if missing := lacks(parse[any](t, r.out),
		"experiment", "version", "command[]", "started", "seconds", "kernel", "machine.cpu_model", "dataplane", "shaper", "seed", "schedule.directions", "schedule.late", "schedule.p99_ms", "schedule.where", "warnings", "identity", "repeats", "lossy_repeats", "limit_ms", "queue",
		"confidence", "cells[].devices.initiator", "cells[].link.bits_per_second", "cells[].link.delay_ms", "cells[].link.loss", "cells[].suite", "cells[].median_ms",
		"cells[].q1_ms", "cells[].q3_ms", "cells[].times_ms[]", "cells[].never", "cells[].why", "cells[].handshake_bytes", "cells[].retransmitted_segments",
		"comparisons[].faster", "comparisons[].shift_ms", "borders[].text", "advice[].verdict",
	); missing != nil {
		t.Errorf("no %v in %s", missing, r.out)
	}
	for _, f := range []string{"result.json", "index.html", "times.svg"} {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// The built-in lab goes through the air, and is told beside the paper.
func TestExperimentNorthSouth(t *testing.T) {
	needLabs(t)
	clean(t)
	dir := filepath.Join(t.TempDir(), "out")
	r := pqlab(t, "experiment", "north-south", "--json", "--mcs", "1", "--ampdu=", "--distances=", "--stations=", "--mtus=", "--repeats", "1", "--duration", "300ms",
		"--dataplane", "gateway", "--report", dir)
	if r.code == exitUnsupported {
		t.Skip(r.err)
	}
	if r.code != exitOK || r.err != "" {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	if missing := lacks(parse[any](t, r.out),
		"experiment", "dataplane", "shaper", "seed", "schedule.directions", "schedule.missed", "schedule.max_ms", "warnings", "paper_bits_per_second", "paper_text_bits_per_second", "radio", "duration_s", "meetings[].paper_bits_per_second", "meetings[].settings",
		"measured[].name", "measured[].parameter", "measured[].median_bits_per_second", "measured[].model_not_measured_bits_per_second", "measured[].runs[].seed",
		"measured[].runs[].stations_bits_per_second[]", "measured[].runs[].late_p99_us", "measured[].runs[].idle", "sensitivities[].text",
	); missing != nil {
		t.Errorf("no %v in %s", missing, r.out)
	}
	for _, f := range []string{"result.json", "index.html", "throughput.svg"} {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestExperimentUsage(t *testing.T) {
	t.Parallel()
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "mine"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range [][2]string{
		{"exchange-over-links --suites falcon512", "falcon512"},
		{"exchange-over-links --suites=", "--suites"},
		{"exchange-over-links --rates 10", "--rates 10"},
		{"exchange-over-links --delays -1ms", "negative"},
		{"exchange-over-links --delays 2h --losses 0", "delay"},
		{"exchange-over-links --delays 2h", "--delays 2h"},
		{"exchange-over-links --losses 101%", "--losses 101%"},
		{"exchange-over-links --rates 1Mbit/s,1000kbit/s", "twice"},
		{"exchange-over-links --suites foo", "falcon512"},
		{"north-south --stations 1,2,1", "twice"},
		{"north-south --mcs x", "whole number"},
		{"north-south --distances 0", "--distances 0"},
		{"north-south --distances 20km", "10km"},
		{"exchange-over-links --losses none,x", "--losses x"},
		{"exchange-over-links --devices jetson", "jetson-nano"},
		{"exchange-over-links --devices none/toaster", "toaster"},
		{"exchange-over-links --repeats 0", "--repeats"},
		{"exchange-over-links --lossy-repeats 0", "--lossy-repeats"},
		{"exchange-over-links --limit 1ms", "--limit"},
		{"exchange-over-links --seed -1", "--seed"},
		{"exchange-over-links --shaper none", "--shaper"},
		{"exchange-over-links --identity none", "pinned"},
		{"exchange-over-links --report " + foreign, foreign},
		{"exchange-over-links more", "more"},
		{"north-south --mcs x", "--mcs x"},
		{"north-south --mcs 11", "MCS"},
		{"north-south --ampdu 65", "64"},
		{"north-south --distances -3", "distance"},
		{"north-south --distances NaN", "distance"},
		{"north-south --stations 0", "--stations"},
		{"north-south --mtus 600", "MTU"},
		{"north-south --repeats 0", "--repeats"},
		{"north-south --duration 1ms", "--duration"},
		{"north-south --shaper none", "--shaper"},
		{"north-south --report " + foreign, foreign},
		{"north", "unknown command"},
	} {
		t.Run(tc[0], func(t *testing.T) {
			t.Parallel()
			r := pqlab(t, append([]string{"experiment"}, strings.Fields(tc[0])...)...)
			if r.code != exitUsage || !strings.Contains(r.err, tc[1]) || r.out != "" || strings.Contains(r.err, ".go:") || strings.Contains(r.err, "strconv") {
				t.Errorf("exit status %d, %s%s", r.code, r.out, r.err)
			}
		})
	}
}

// What cannot delay is refused, with what could.
func TestExperimentUnsupported(t *testing.T) {
	needLabs(t)
	clean(t)
	if r := pqlab(t, "experiment", "north-south", "--shaper", "netem", "--quick"); r.code != exitUnsupported || !strings.Contains(r.err, "airtime") || strings.Contains(r.err, "none") || r.out != "" {
		t.Errorf("exit status %d, %s%s", r.code, r.out, r.err)
	}
	r := pqlab(t, "experiment", "exchange-over-links", "--shaper", "tbf", "--rates", "1Mbit/s", "--delays", "1ms", "--losses", "0", "--devices", "none", "--repeats", "1")
	if r.code != exitUnsupported || !strings.Contains(r.err, "delay 1ms") || !strings.Contains(r.err, "--shaper") || strings.Contains(r.err, "none") || r.out != "" {
		t.Errorf("exit status %d, %s%s", r.code, r.out, r.err)
	}
}

// A strict experiment fails if and only if a wire was too late, and prints its result all the same.
func TestExperimentStrict(t *testing.T) {
	needLabs(t)
	clean(t)
	for _, args := range []string{
		"exchange-over-links --rates 10Mbit/s --delays 2ms --losses 0 --suites mldsa44+mlkem512 --devices none --repeats 2 --limit 30s --dataplane gateway",
		"north-south --mcs= --ampdu= --distances= --stations= --mtus= --repeats 1 --duration 200ms --dataplane gateway",
	} {
		r := pqlab(t, append(append([]string{"experiment"}, strings.Fields(args)...), "--strict", "--json", "--shaper", "wire")...)
		if r.code == exitUnsupported {
			t.Skip(r.err)
		}
		got := parse[struct {
			Schedule struct {
				Directions, Late int
				Missed           uint64
				P99              float64 `json:"p99_ms"`
				Max              float64 `json:"max_ms"`
			} `json:"schedule"`
			Warnings []string `json:"warnings"`
		}](t, r.out)
		s := got.Schedule
		if s.Directions == 0 || s.P99 <= 0 || s.Max < s.P99 || s.Late > s.Directions {
			t.Errorf("%s: %+v", args, s)
		}
		if want := map[bool]int{false: exitOK, true: exitFailed}[s.Late > 0]; r.code != want || s.Late > 0 && len(got.Warnings) == 0 {
			t.Errorf("%s: exit status %d, %+v, %q: %s", args, r.code, s, got.Warnings, r.err)
		}
	}
}

// How long it takes is not known before something is done.
func TestLeft(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		passed time.Duration
		done   float64
		want   time.Duration
	}{{0, 0, -1}, {time.Minute, 0, -1}, {time.Minute, 0.25, 3 * time.Minute}, {time.Minute, 1, 0}} {
		if got := left(tt.passed, tt.done); got != tt.want {
			t.Errorf("%v for %v: %v", tt.passed, tt.done, got)
		}
	}
}
