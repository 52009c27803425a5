package journal

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// owner is the process that a journal is named for.
type owner struct {
	pid     int
	started uint64 // clock ticks after boot: a later process with the same number has another
	boot    string // 32 hexadecimal digits
	n       int    // of the journals that a process has
}

func (o owner) String() string { return fmt.Sprintf("%d-%d-%s-%d", o.pid, o.started, o.boot, o.n) }

// parseOwner returns the owner that a journal's name says.
func parseOwner(name string) (owner, bool) {
	f := strings.Split(name, "-")
	if len(f) != 4 {
		return owner{}, false
	}
	pid, err1 := strconv.Atoi(f[0])
	started, err2 := strconv.ParseUint(f[1], 10, 64)
	n, err3 := strconv.Atoi(f[3])
	o := owner{pid, started, f[2], n}
	valid := err1 == nil && err2 == nil && err3 == nil && pid > 0 && n >= 0 && len(o.boot) == 32 && o.String() == name
	return o, valid && strings.Trim(o.boot, "0123456789abcdef") == ""
}

// self returns this process.
func self() (owner, error) {
	boot, err := bootID()
	if err != nil {
		return owner{}, err
	}
	started, alive := startTime(os.Getpid())
	if !alive {
		return owner{}, fmt.Errorf("read own start time in /proc: %w", os.ErrNotExist)
	}
	return owner{pid: os.Getpid(), started: started, boot: boot}, nil
}

// bootID returns the kernel's name for this boot.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""), nil
}

// alive tells whether the owner's process exists in this boot.
func (o owner) alive(boot string) bool {
	started, ok := startTime(o.pid)
	return ok && started == o.started && o.boot == boot
}

// startTime returns when a process was started, in clock ticks after boot (proc_pid_stat(5)), and whether it is running
// still: what a zombie had it has lost.
func startTime(pid int) (uint64, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // behind the name: state is the 3rd, start the 22nd
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, false
	}
	t, err := strconv.ParseUint(fields[19], 10, 64)
	return t, err == nil
}
