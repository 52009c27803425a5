package probe

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"

	"pqlab/internal/journal"
	"pqlab/internal/vm"
	guests "pqlab/internal/vm/kernel"
	"pqlab/ipsec/strongswan"
	"pqlab/nodes"
)

func tryKernel() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %s %s", unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])), nil
}

// tryCPULimits makes a node's cgroup as a lab does, journal and all.
func tryCPULimits() (seen string, err error) {
	seen = map[cgroups.CGMode]string{
		cgroups.Unavailable: "no cgroups are mounted", cgroups.Legacy: "version 1", cgroups.Hybrid: "version 1 beside 2", cgroups.Unified: "version 2",
	}[cgroups.Mode()]
	dir, err := journal.Dir()
	if err != nil {
		return seen, err
	}
	j, err := journal.Open(dir)
	if err != nil {
		return seen, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	c, err := nodes.NewCgroup("doctor", "probe", nodes.Profile{Name: "probe", Cores: 1, Share: 1}, j)
	if errors.Is(err, nodes.ErrNoCgroup) {
		return seen, fmt.Errorf("%w: %w", errMissing, err)
	}
	if err != nil {
		return seen, err
	}
	return seen, c.Remove()
}

func tryAES() (string, error) {
	switch {
	case cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ && cpu.X86.HasSSSE3, cpu.ARM64.HasAES && cpu.ARM64.HasPMULL, cpu.S390X.HasAESGCM:
		return fmt.Sprintf("%d CPUs", runtime.NumCPU()), nil
	}
	return fmt.Sprintf("%d CPUs", runtime.NumCPU()), errMissing
}

func tryMemory() (string, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	kib := map[string]uint64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		var n uint64
		if _, err := fmt.Sscan(rest, &n); err == nil {
			kib[name] = n
		}
	}
	total, ok1 := kib["MemTotal"]
	available, ok2 := kib["MemAvailable"]
	if !ok1 || !ok2 {
		return "", fmt.Errorf("/proc/meminfo has no MemTotal or MemAvailable: %w", errMissing)
	}
	const gib = 1 << 20
	return fmt.Sprintf("%.1f of %.1f GiB available", float64(available)/gib, float64(total)/gib), nil
}

var errBootsNone = errors.New("/dev/kvm opens, but the first guest did not boot under it")

// tryKVM opens it, and takes an earlier guest's word: there are machines where it opens and boots none.
func tryKVM() (string, error) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	cache, err := guests.UserCache()
	if err != nil {
		return "", err
	}
	switch boots, known := vm.BootsUnderKVM(filepath.Dir(cache.Dir)); {
	case !known:
		return "opens; the first guest will try it", nil
	case !boots:
		return "", errBootsNone
	}
	return "boots guests", nil
}

func tryQEMU() (string, error) {
	path, err := vm.QEMU()
	if err != nil {
		return "", fmt.Errorf("%w: %w", errMissing, err)
	}
	return path, nil
}

func tryGuestKernel() (string, error) {
	cache, err := guests.UserCache()
	if err != nil {
		return "", err
	}
	k, err := cache.Find("")
	if errors.Is(err, guests.ErrNotFetched) {
		return "", fmt.Errorf("%w in %s", errMissing, cache.Dir)
	}
	return k.Release, err
}

// tryStrongswan does not start it: where that takes mounts of its own, as where it was unpacked, only a lab does.
func tryStrongswan() (string, error) {
	cache, err := strongswan.CacheDir()
	if err != nil {
		return "", err
	}
	at, err := strongswan.Find(cache)
	if errors.Is(err, strongswan.ErrMissing) {
		return "", fmt.Errorf("%w in %s, PATH or /usr/sbin", errMissing, cache)
	}
	if err != nil {
		return "", err
	}
	if at.Root == "" {
		return at.Program, nil
	}
	return fmt.Sprintf("%s in %s", filepath.Base(at.Root), filepath.Dir(at.Root)), nil // which is named for its version
}
