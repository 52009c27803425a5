package main

import (
	"strings"
	"testing"
)

func TestBenchSAs(t *testing.T) {
	needLabs(t)
	clean(t)
	r := pqlab(t, "bench", "sas", "--dataplane", "gateway", "--runs", "2", "--duration", "20ms", "--json")
	if r.code != exitOK || r.err != "" {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	got := parse[struct {
		Dataplane string
		Runs      []float64 `json:"runs_pairs_per_second"`
		Median    float64   `json:"pairs_per_second"`
	}](t, r.out)
	if !strings.HasPrefix(got.Dataplane, "gateway/") || len(got.Runs) != 2 || got.Median <= 0 {
		t.Errorf("%+v", got)
	}
	if r := pqlab(t, "bench", "sas", "--dataplane", "gateway", "--runs", "1", "--duration", "20ms"); r.code != exitOK || strings.Count(r.out, "\n") < 2 {
		t.Errorf("exit status %d: %s%s", r.code, r.out, r.err)
	}
}

func TestBenchDataplaneUsage(t *testing.T) {
	t.Parallel()
	for _, tc := range [][2]string{
		{"sas --runs 0", "--runs"},
		{"sas --duration 0s", "--duration"},
		{"sas --dataplane offload", "gateway"},
		{"sas more", "more"},
		{"tunnel --runs 0", "--runs"},
		{"tunnel --duration -1s", "--duration"},
		{"tunnel --dataplane ebpf", "gateway"},
	} {
		t.Run(tc[0], func(t *testing.T) {
			t.Parallel()
			r := pqlab(t, append([]string{"bench"}, strings.Fields(tc[0])...)...)
			if r.code != exitUsage || !strings.Contains(r.err, tc[1]) || r.out != "" {
				t.Errorf("exit status %d, %s%s", r.code, r.out, r.err)
			}
		})
	}
}
