package bench

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// spinners are the processor times, in the kernel's ticks, of this process's children that do nothing but spin.
func spinners(t *testing.T) (ticks []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Fatalf("no processes: %v", err)
	}
	for _, path := range stats {
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline")) // it may have ended
		if string(command) != "/bin/sh\x00-c\x00"+spin+"\x00" {
			continue
		}
		stat, _ := os.ReadFile(path)
		// proc_pid_stat(5), behind the name, which may have anything: state, ppid, and utime and stime as the 12th and 13th.
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 13 || fields[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		ticks = append(ticks, user+system)
	}
	return ticks
}

// A load is a process for each processor, each of which takes processor time, until it is stopped; and then it tells how much.
func TestLoad(t *testing.T) {
	l, err := startLoad(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const some = 5 // ticks
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		busy := 0
		ticks := spinners(t)
		for _, n := range ticks {
			if n >= some {
				busy++
			}
		}
		if len(ticks) == runtime.NumCPU() && busy == runtime.NumCPU() {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d processors, processes with so many ticks: %v", runtime.NumCPU(), ticks)
		}
	}
	got, err := l.stop()
	if err != nil || got.Processes != runtime.NumCPU() || got.Cores <= 0 || got.Cores > 1.1*float64(runtime.NumCPU()) {
		t.Errorf("%+v, %v", got, err)
	}
	if left := spinners(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A load that ended before it was to says so: what was measured had no load beside it.
func TestLoadEnded(t *testing.T) {
	l, err := startLoad(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	victim := l.spinners[0].Process
	if err := victim.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); len(spinners(t)) == runtime.NumCPU(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it goes on")
		}
	}
	if _, err := l.stop(); err == nil {
		t.Error("nobody was told")
	}
}
