package crypto

import (
	"testing"
	"time"
)

// sample is a result that Measure could have given, on a device with a counter.
func sample(device string) Result {
	times := func(scale float64) Times {
		ns := Spread{1000 * scale, 1100 * scale, 1150.5 * scale, 1300 * scale}
		c := Spread{2600 * scale, 2860 * scale, 2991 * scale, 3380 * scale}
		return Times{ns, &c}
	}
	scheme := func(name, kind string, scale float64) Scheme {
		s := Scheme{Name: name, Kind: kind, PublicKey: 800}
		if kind == Signature {
			s.Signature = 666
		} else {
			s.Ciphertext = 768
		}
		for i, o := range Operations(kind) {
			s.Operations = append(s.Operations, Operation{Name: o, Side: Side(o), Times: times(scale * float64(i+1)), Preempted: 3, Outliers: 5, Noisy: 6})
		}
		return s
	}
	load, cores, steal := 0.5, 0.02, 0.0
	return Result{
		Format: Format, FormatVersion: FormatVersion, Device: device, Started: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC),
		Seconds: 12.5, Iterations: 1000,
		Machine: Machine{
			CPU: "Some CPU", CPUs: 2, Arch: "amd64", Kernel: "Linux 6.1", Virtual: "no", Governor: "performance",
			Counter: &Counter{Name: "TSC", Hz: 2.6e9, Invariant: true, CorePerTick: Spread{1.40, 1.42, 1.42, 1.43}},
			PQLab:   "v1", Go: "go1.26", Level: "v1",
		},
		Activity: Activity{LoadBefore: &load, LoadAfter: &load, OthersCores: &cores, StealCores: &steal, Preempted: 40},
		Overhead: Times{Spread{80, 80, 81, 90}, &Spread{78, 78, 79, 80}},
		Schemes: []Scheme{
			scheme("falcon512", Signature, 100), scheme("falcon1024", Signature, 200), scheme("dilithium2", Signature, 50),
			scheme("kyber512", KEM, 10), scheme("kyber768", KEM, 15),
		},
	}
}

// uncounted is the sample of a device without a counter.
func uncounted(device string) Result {
	r := sample(device)
	r.Machine.Counter, r.Machine.Arch, r.Overhead.Cycles = nil, "riscv64", nil
	for i := range r.Schemes {
		for j := range r.Schemes[i].Operations {
			r.Schemes[i].Operations[j].Cycles = nil
		}
	}
	return r
}

func TestSample(t *testing.T) {
	t.Parallel()
	for _, r := range []Result{sample("a"), uncounted("b")} {
		if err := r.check(); err != nil {
			t.Error(err)
		}
	}
}
