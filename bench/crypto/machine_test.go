package crypto

import (
	"math"
	"runtime"
	"testing"
	"testing/fstest"

	"pqlab/internal/cycles"
)

func files(m map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range m {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

// What the kernels of several devices say.
func TestReadMachine(t *testing.T) {
	t.Parallel()
	const a72 = "processor\t: 0\nBogoMIPS\t: 400.00\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd08\n\nprocessor\t: 1\nCPU part\t: 0xd09\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  Machine
	}{
		"a server": {
			map[string]string{
				"proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6242\n\nprocessor\t: 1\nmodel name\t: another\n",
				"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor":  "powersave\n",
				"sys/devices/system/cpu/cpu1/cpufreq/scaling_governor":  "performance\n",
				"sys/devices/system/cpu/cpu10/cpufreq/scaling_governor": "powersave\n",
			},
			Machine{CPU: "Intel(R) Xeon(R) Gold 6242", Governor: "performance, powersave"},
		},
		"a DPU": {
			map[string]string{"proc/cpuinfo": a72, "proc/device-tree/model": "NVIDIA BlueField-2\x00"},
			Machine{CPU: "NVIDIA BlueField-2, arm implementer 0x41 part 0xd08"},
		},
		"a guest of KVM": {
			map[string]string{"proc/cpuinfo": a72, "proc/device-tree/hypervisor/compatible": "linux,kvm\x00"},
			Machine{CPU: "arm implementer 0x41 part 0xd08", Virtual: "KVM"},
		},
		"QEMU on another machine": {
			map[string]string{"proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x00\nCPU part\t: 0x051\n", "sys/class/dmi/id/sys_vendor": "QEMU\n"},
			Machine{CPU: "arm implementer 0x00 part 0x051", Virtual: "QEMU TCG", Emulated: true},
		},
		"QEMU as something else": {
			map[string]string{"proc/cpuinfo": a72, "sys/class/dmi/id/sys_vendor": "QEMU\n"},
			Machine{CPU: "arm implementer 0x41 part 0xd08", Virtual: "QEMU, by KVM or TCG"},
		},
		"nothing to read": {nil, Machine{CPU: runtime.GOARCH}},
	} {
		if got := readMachine(files(c.files)); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	for want, m := range map[string]cycles.Machine{
		"no": {Known: true}, "KVM": {Virtual: true, Hypervisor: "KVMKVMKVM"}, "QEMU TCG": {Virtual: true, Hypervisor: "TCGTCGTCGTCG"},
		"NewVisor": {Virtual: true, Hypervisor: "NewVisor"}, "a hypervisor without a name": {Virtual: true},
	} {
		if got := virtual(m); got != want {
			t.Errorf("%+v: %q, want %q", m, got, want)
		}
	}
}

// What others do is what the machine did less what pqlab did, as cores.
func TestActivity(t *testing.T) {
	t.Parallel()
	const before = "cpu  1000 100 500 9000 300 50 50 20 700 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nintr 5\ncpu9 1 1 1 1 1 1 1 1 0 0\n"
	const after = "cpu  1500 150 800 9800 400 75 75 220 900 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nintr 9\n"
	a := readObservation(files(map[string]string{"proc/stat": before, "proc/loadavg": "0.25 0.80 2.00 1/94 29140\n"}))
	b := readObservation(files(map[string]string{"proc/stat": after, "proc/loadavg": "1.50 0.80 2.00 1/94 29140\n"}))
	a.own, b.own = 1, 4
	// 2000 hundredths passed on two cores: 10 s. Busy 500+50+300+25+25 = 900: 9 s, 3 of them pqlab's. Stolen 200: 2 s.
	got := b.since(a)
	close := func(f *float64, want float64) bool { return f != nil && math.Abs(*f-want) < 1e-9 }
	if !close(got.OthersCores, 0.6) || !close(got.StealCores, 0.2) || !close(got.LoadBefore, 0.25) || !close(got.LoadAfter, 1.5) {
		t.Errorf("others %v, steal %v, load %v %v", got.OthersCores, got.StealCores, got.LoadBefore, got.LoadAfter)
	}
	b.own = 100
	if got := b.since(a); !close(got.OthersCores, 0) {
		t.Errorf("others %v", *got.OthersCores)
	}
	if got := a.since(a); got.OthersCores != nil {
		t.Errorf("in no time others kept %v cores busy", *got.OthersCores)
	}
	for _, stat := range []string{"", "cpu", "cpu  a b c d e f g h\ncpu0", "cpu 1 2 3\ncpu0", "intr 5\n"} {
		o := readObservation(files(map[string]string{"proc/stat": stat, "proc/loadavg": "much"}))
		if got := b.since(o); got.OthersCores != nil || got.StealCores != nil || got.LoadBefore != nil {
			t.Errorf("%q: %+v", stat, got)
		}
	}
	if got := readObservation(files(nil)); got.load != nil || got.busy != nil {
		t.Errorf("%+v", got)
	}
}

// This machine says something.
func TestMachine(t *testing.T) {
	t.Parallel()
	m := ThisMachine("v9")
	if m.CPU == "" || m.CPUs < 1 || m.Arch != runtime.GOARCH || m.Go != runtime.Version() || m.PQLab != "v9" || m.Kernel == "" || CPUModel() != m.CPU {
		t.Errorf("%+v", m)
	}
	if runtime.GOARCH == "amd64" && (m.Virtual == "" || m.Level == "") {
		t.Errorf("%+v", m)
	}
	if o := observe(); o.busy == nil || o.own <= 0 || o.cpus < 1 || o.load == nil {
		t.Errorf("%+v", o)
	}
}
