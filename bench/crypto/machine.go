package crypto

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"pqlab/internal/cycles"
)

// Machine is where a run took place, and what it was built with. What could not be found out is empty.
type Machine struct {
	CPU      string `json:"cpu"` // its model
	CPUs     int    `json:"cpus"`
	Arch     string `json:"arch"` // GOARCH
	Kernel   string `json:"kernel"`
	Virtual  string `json:"virtual"`  // "no", or by what: "KVM", "QEMU TCG"
	Emulated bool   `json:"emulated"` // each instruction is another machine's program
	Governor string `json:"governor"` // of the cores' frequency; several if they differ
	// Counter of cycles; nil where there is none.
	Counter *Counter `json:"counter"`

	PQLab    string `json:"pqlab"`
	Revision string `json:"revision"` // of pqlab's source
	Go       string `json:"go"`
	Level    string `json:"level"` // GOAMD64 or GOARM64
	Tags     string `json:"tags"`  // of the build
	Race     bool   `json:"race"`  // the race detector slows everything down
}

// Counter is what counted the cycles.
type Counter struct {
	Name      string  `json:"name"`
	Hz        float64 `json:"hz"`        // measured against CLOCK_MONOTONIC during the run
	Invariant bool    `json:"invariant"` // it keeps its rate whatever the core does
	// CorePerTick is how many cycles of the core pass in one of the counter's: measured between the series of samples.
	CorePerTick Spread `json:"core_per_tick"`
}

// ThisMachine is the one that this runs on, without its counter of cycles.
func ThisMachine(version string) Machine {
	m := readMachine(os.DirFS("/"))
	m.CPUs, m.Arch, m.PQLab, m.Go = runtime.NumCPU(), runtime.GOARCH, version, runtime.Version()
	if asked := cycles.Ask(); asked.Known {
		m.Virtual, m.Emulated = virtual(asked), asked.Emulated()
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, s := range build.Settings {
			switch s.Key {
			case "GOAMD64", "GOARM64":
				m.Level = s.Value
			case "-tags":
				m.Tags = s.Value
			case "-race":
				m.Race = s.Value == "true"
			case "vcs.revision":
				m.Revision = s.Value
			case "vcs.modified":
				if s.Value == "true" {
					m.Revision += "+changes" // vcs.revision comes before it
				}
			}
		}
	}
	return m
}

func virtual(m cycles.Machine) string {
	if !m.Virtual {
		return "no"
	}
	names := map[string]string{
		"KVMKVMKVM": "KVM", "TCGTCGTCGTCG": "QEMU TCG", "Microsoft Hv": "Hyper-V", "VMwareVMware": "VMware",
		"XenVMMXenVMM": "Xen", "bhyve bhyve": "bhyve", "": "a hypervisor without a name",
	}
	if name := names[m.Hypervisor]; name != "" {
		return name
	}
	return m.Hypervisor
}

// CPUModel is what the kernel calls this processor.
func CPUModel() string { return readMachine(os.DirFS("/")).CPU }

// readMachine reads what the files of the kernel say, root being "/".
func readMachine(root fs.FS) Machine {
	m := Machine{CPU: runtime.GOARCH}
	var implementer, part string
	if text, err := fs.ReadFile(root, "proc/cpuinfo"); err == nil {
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan() && lines.Text() != ""; { // the first processor
			name, value, _ := strings.Cut(lines.Text(), ":")
			value = strings.TrimSpace(value)
			switch strings.TrimSpace(name) {
			case "model name", "uarch": // x86, RISC-V
				m.CPU = value
			case "CPU implementer":
				implementer = value
			case "CPU part":
				part = value
			}
		}
	}
	if implementer != "" && m.CPU == runtime.GOARCH { // arm64, which names no model: the board's name says more
		m.CPU = fmt.Sprintf("arm implementer %s part %s", implementer, part)
		if model, err := fs.ReadFile(root, "proc/device-tree/model"); err == nil {
			m.CPU = strings.TrimRight(string(model), "\x00\n") + ", " + m.CPU
		}
	}
	by, _ := fs.ReadFile(root, "proc/device-tree/hypervisor/compatible")
	vendor, _ := fs.ReadFile(root, "sys/class/dmi/id/sys_vendor")
	switch {
	case implementer == "0x00" && part == "0x051": // QEMU's own processors: MIDR_EL1 of -cpu max
		m.Virtual, m.Emulated = "QEMU TCG", true
	case strings.Contains(string(by), "kvm"):
		m.Virtual = "KVM"
	case strings.Contains(string(by), "xen"):
		m.Virtual = "Xen"
	case strings.HasPrefix(string(vendor), "QEMU"):
		m.Virtual = "QEMU, by KVM or TCG"
	}
	files, _ := fs.Glob(root, "sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")
	var governors []string
	for _, f := range files {
		if text, err := fs.ReadFile(root, f); err == nil {
			governors = append(governors, strings.TrimSpace(string(text)))
		}
	}
	slices.Sort(governors)
	m.Governor = strings.Join(slices.Compact(governors), ", ")
	return m
}

// Activity is how busy the machine was during a run. What the kernel does not tell is nil.
type Activity struct {
	LoadBefore  *float64 `json:"load_before"`  // average of the minute before the run
	LoadAfter   *float64 `json:"load_after"`   // and of its last minute, pqlab included
	OthersCores *float64 `json:"others_cores"` // cores that others than pqlab kept busy, on average
	StealCores  *float64 `json:"steal_cores"`  // cores that the hypervisor gave to others, on average
	// Preempted is how often the kernel took the core away during samples. What happens between samples does not count:
	// the collector's yields would.
	Preempted int64 `json:"preempted"`
}

// observation is a moment in the life of a machine.
type observation struct {
	load        *float64
	elapsed     float64  // seconds of all cores together, as the kernel counts them
	busy, steal *float64 // seconds of all cores together
	own         float64  // seconds of this process
	cpus        int
}

// Watch begins to observe the machine; stop tells how busy it was since.
func Watch() (stop func() Activity) {
	before := observe()
	return func() Activity { return observe().since(before) }
}

func observe() observation {
	o := readObservation(os.DirFS("/"))
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		o.own = float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	}
	return o
}

// userHz is the unit of /proc/stat on every architecture that Go knows (proc(5)).
const userHz = 100

func readObservation(root fs.FS) observation {
	o := observation{}
	if text, err := fs.ReadFile(root, "proc/loadavg"); err == nil {
		if first, _, _ := strings.Cut(string(text), " "); first != "" {
			if load, err := strconv.ParseFloat(first, 64); err == nil {
				o.load = &load
			}
		}
	}
	text, err := fs.ReadFile(root, "proc/stat")
	if err != nil {
		return o
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "cpu") {
			break
		}
		if fields[0] != "cpu" {
			o.cpus++
			continue
		}
		// user nice system idle iowait irq softirq steal; those of guests are in user and nice.
		var seconds [8]float64
		if len(fields) < 1+len(seconds) {
			return o
		}
		for i := range seconds {
			ticks, err := strconv.ParseUint(fields[1+i], 10, 64)
			if err != nil {
				return o
			}
			seconds[i] = float64(ticks) / userHz
			o.elapsed += seconds[i]
		}
		busy := seconds[0] + seconds[1] + seconds[2] + seconds[5] + seconds[6]
		o.busy, o.steal = &busy, &seconds[7]
	}
	return o
}

// since gives averages over the time from before to o. The kernel counts in hundredths of a second, this process's time
// finer, so what is left for others can come out slightly below 0 and is 0 then.
func (o observation) since(before observation) Activity {
	a := Activity{LoadBefore: before.load, LoadAfter: o.load}
	if o.busy == nil || before.busy == nil || o.cpus == 0 || o.elapsed <= before.elapsed {
		return a
	}
	seconds := (o.elapsed - before.elapsed) / float64(o.cpus)
	others := max(0, *o.busy-*before.busy-(o.own-before.own)) / seconds
	steal := max(0, *o.steal-*before.steal) / seconds
	a.OthersCores, a.StealCores = &others, &steal
	return a
}
