package crypto

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/pqc"
)

// Every operation of every scheme is measured, in the order that the file wants, with the sizes of the scheme.
func TestMeasure(t *testing.T) {
	percent := debug.SetGCPercent(100)
	defer debug.SetGCPercent(percent)
	var told []string
	last := -1.0
	r, err := Measure(t.Context(), Options{
		Device: "here", Iterations: 3, Signatures: pqc.Signatures(), KEMs: pqc.KEMs(), Version: "v0",
		Progress: func(what string, done float64, left time.Duration) {
			if done < 0 || done > 1 || left < 0 && (left != -1 || done > 0 || last > 0) {
				t.Errorf("%s: %v done, %v left", what, done, left)
			}
			told, last = append(told, what), done
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := debug.SetGCPercent(100); got != 100 {
		t.Errorf("the collector's setting is left at %d", got)
	}
	if err := r.check(); err != nil {
		t.Errorf("%v: %+v", err, r)
	}
	if len(r.Schemes) != len(pqc.Signatures())+len(pqc.KEMs()) || r.Device != "here" || r.Iterations != 3 || r.Machine.PQLab != "v0" {
		t.Errorf("%+v", r)
	}
	if last < 0.5 {
		t.Errorf("at the end %v was done", last)
	}
	all := strings.Join(told, "\n")
	for _, s := range pqc.Signatures() {
		got, ok := r.scheme(s.Name())
		if !ok || got.Kind != Signature || got.PublicKey != s.PublicKeySize() || got.Signature < 1 || got.Signature > s.SignatureSize() {
			t.Errorf("%s: %+v", s.Name(), got)
		}
		if !strings.Contains(all, s.Name()+", client") || !strings.Contains(all, s.Name()+", server") {
			t.Errorf("progress does not tell of %s", s.Name())
		}
	}
	for _, k := range pqc.KEMs() {
		if got, ok := r.scheme(k.Name()); !ok || got.Kind != KEM || got.PublicKey != k.EncapsulationKeySize() || got.Ciphertext != k.CiphertextSize() {
			t.Errorf("%s: %+v", k.Name(), got)
		}
	}
	if c := r.Machine.Counter; c != nil {
		for _, s := range r.Schemes {
			for _, o := range s.Operations {
				// Two clocks, one time: disturbances between their readings are in one of them, so this is wide.
				if ratio := o.Cycles.Median / o.NS.Median * 1e9 / c.Hz; ratio < 0.5 || ratio > 2 {
					t.Errorf("%s %s: %v ns, %v cycles at %v Hz", s.Name, o.Name, o.NS.Median, o.Cycles.Median, c.Hz)
				}
			}
		}
	}
}

// A single sample of a whole is the sum of its parts'.
func TestWhole(t *testing.T) {
	r, err := Measure(t.Context(), Options{Device: "d", Iterations: 1, Signatures: pqc.Signatures()[:1], KEMs: pqc.KEMs()[:1]})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Schemes {
		whole, a, b := s.Operations[1], s.Operations[2], s.Operations[3]
		if whole.NS.Median != a.NS.Median+b.NS.Median || whole.Cycles != nil && whole.Cycles.Median != a.Cycles.Median+b.Cycles.Median {
			t.Errorf("%s: %+v, %+v, %+v", s.Name, whole, a, b)
		}
	}
}

// slow is a scheme that takes as long as it is told to, by the clock.
type slow struct {
	pqc.Signature
	generate, parse, sign, verify time.Duration
	err                           error // of Verify
}

func spin(d time.Duration) {
	for began := time.Now(); time.Since(began) < d; {
	}
}

func (s slow) GenerateKey() (pqc.SigningKey, error) {
	spin(s.generate)
	k, err := s.Signature.GenerateKey()
	return slowKey{k, s}, err
}

func (s slow) ParsePublicKey(b []byte) (pqc.PublicKey, error) {
	spin(s.parse)
	k, err := s.Signature.ParsePublicKey(b)
	return slowPublic{k, s}, err
}

type slowKey struct {
	pqc.SigningKey
	s slow
}

func (k slowKey) Sign(m []byte) ([]byte, error) {
	spin(k.s.sign)
	return k.SigningKey.Sign(m)
}

type slowPublic struct {
	pqc.PublicKey
	s slow
}

func (k slowPublic) Verify(m, sig []byte) error {
	spin(k.s.verify)
	return errors.Join(k.s.err, k.PublicKey.Verify(m, sig))
}

// Each operation is timed with all that belongs to it and nothing else: reading the peer's key belongs to verifying.
func TestTimed(t *testing.T) {
	const long = 100 * time.Millisecond
	base := pqc.Signatures()[0]
	for _, c := range []struct {
		s    slow
		long []string
	}{
		{slow{generate: long}, []string{Keygen, KeygenSign}},
		{slow{sign: long}, []string{Sign, KeygenSign}},
		{slow{parse: long}, []string{Verify}},
		{slow{verify: long}, []string{Verify}},
	} {
		c.s.Signature = base
		r, err := Measure(t.Context(), Options{Device: "d", Iterations: 5, Signatures: []pqc.Signature{c.s}})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range r.Schemes[0].Operations {
			want := false
			for _, name := range c.long {
				want = want || name == o.Name
			}
			// p10 of what is long, the median of what is not: a machine that is busy makes nothing shorter.
			if got := o.NS.P10 >= float64(long); got != want {
				t.Errorf("%v is slow: %s takes %v ns", c.long, o.Name, o.NS)
			}
		}
	}
}

var errBroken = errors.New("broken")

// A scheme that does not work is an error that names it, and no figure.
func TestBroken(t *testing.T) {
	_, err := Measure(t.Context(), Options{Device: "d", Iterations: 2, Signatures: []pqc.Signature{slow{Signature: pqc.Signatures()[0], err: errBroken}}})
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), pqc.Signatures()[0].Name()) {
		t.Errorf("%v", err)
	}
	_, err = Measure(t.Context(), Options{Device: "d", Iterations: 2, KEMs: []pqc.KEM{forgetful{pqc.KEMs()[0]}}})
	if !errors.Is(err, errSecrets) || !strings.Contains(err.Error(), pqc.KEMs()[0].Name()) {
		t.Errorf("%v", err)
	}
	for _, o := range []Options{{Iterations: 0, KEMs: pqc.KEMs()}, {Iterations: MaxIterations + 1, KEMs: pqc.KEMs()}, {Iterations: 1}} {
		if _, err := Measure(t.Context(), o); err == nil {
			t.Errorf("%+v is measured", o)
		}
	}
}

// forgetful decapsulates another secret.
type forgetful struct{ pqc.KEM }

type forgetfulKey struct{ pqc.DecapsulationKey }

func (f forgetful) GenerateKey() (pqc.DecapsulationKey, error) {
	k, err := f.KEM.GenerateKey()
	return forgetfulKey{k}, err
}

func (k forgetfulKey) Decapsulate(c []byte) ([]byte, error) {
	s, err := k.DecapsulationKey.Decapsulate(c)
	if err == nil {
		s[0]++
	}
	return s, err
}

// At whatever moment it is told to stop, it stops, and says why.
func TestStop(t *testing.T) {
	for step := range 6 {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := Measure(ctx, Options{
			Device: "d", Iterations: MaxIterations, KEMs: pqc.KEMs()[:2],
			Progress: func(string, float64, time.Duration) {
				if n++; n == step+1 {
					cancel()
				}
			},
		})
		cancel()
		if !errors.Is(err, context.Canceled) || n > step+1 {
			t.Errorf("told at step %d, it stopped at step %d: %v", step+1, n, err)
		}
	}
}

// A sample during which the kernel gave the core to another thread is marked.
func TestPreempted(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with its affinity
	var whole, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &whole); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if whole.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Skipf("cannot keep a thread on one core: %v", err)
	}
	var stop atomic.Bool
	ready := make(chan error)
	go func() { // wants the same core
		runtime.LockOSThread()
		ready <- unix.SchedSetaffinity(0, &one)
		for !stop.Load() {
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	defer stop.Store(true)
	j := &job{watch: &stopwatch{base: time.Now()}, series: []series{newSeries(2)}}
	err := j.time(0, func() error {
		before := involuntarySwitches()
		for deadline := time.Now().Add(2 * time.Minute); involuntarySwitches() == before; {
			if time.Now().After(deadline) {
				t.Fatal("two threads shared a core for two minutes, and neither had to wait")
			}
		}
		return nil
	})
	if err != nil || !j.series[0].preempted[0] || j.preempted < 1 {
		t.Errorf("%v, %+v, %d times", err, j.series[0].preempted, j.preempted)
	}
	if o := j.series[0].operation(Sign); o.Preempted != 1 || o.Noisy != 1 {
		t.Errorf("%+v", o)
	}
	j.idle = true
	if err := j.time(0, func() error { return nil }); err != nil || len(j.series[0].ns) != 1 {
		t.Errorf("a round that is not measured is kept: %v", err)
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	m := &measurement{Options: Options{Iterations: 100}, jobs: []*job{
		{pilot: 2},                            // not begun: 200 s
		{pilot: 9, seconds: 20, rounds: 50},   // its pilot was slower: 20 s to go
		{pilot: 1, seconds: 180, rounds: 100}, // over
		{pilot: 0, seconds: 0.0, rounds: 0.0 /* too short to see */},
	}}
	if done, left := m.progress(); done < 0.4761 || done > 0.4763 || left != 220*time.Second {
		t.Errorf("%v done, %v left", done, left)
	}
	if done, left := (&measurement{}).progress(); done != 0 || left != 0 {
		t.Errorf("nothing: %v done, %v left", done, left)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	if hz := (reading{time.Second, 1000}).rate(reading{3 * time.Second, 5000}); hz != 2000 {
		t.Errorf("%v", hz)
	}
}
