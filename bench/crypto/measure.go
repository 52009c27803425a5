package crypto

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/cycles"
	"pqlab/pqc"
)

// MaxIterations bounds what the samples of a run take of memory.
const MaxIterations = 1_000_000

// Options of a run.
type Options struct {
	Device     string // its name in the figure
	Iterations int    // of each operation, 1 to MaxIterations
	Signatures []pqc.Signature
	KEMs       []pqc.KEM
	Version    string // of pqlab
	// Progress is told what is measured, how much of the run is done (0 to 1) and how long the rest will take; that is
	// negative before the first samples, when nobody knows.
	Progress func(what string, done float64, left time.Duration)
}

const (
	// turns is in how many parts the schemes take turns, so that what changes during a run meets all of them.
	turns = 10
	// What is measured at one go, between two collections of garbage.
	batchRounds = 256
	batchTime   = 500 * time.Millisecond
	batchBytes  = 4 << 20 // as much as Go lets a small program allocate before it collects
	// pilotRounds precede the first turn: they fill caches and tell how long the run will take.
	pilotRounds = 2
	// coreRounds take some tens of microseconds.
	coreRounds = 2000
)

// Measure times each operation of each scheme. The samples of an operation are taken on one thread of the kernel, one by
// one; the collector of garbage runs between samples and never in one. It ends soon after ctx does, with ctx's error.
func Measure(ctx context.Context, o Options) (Result, error) {
	if o.Iterations < 1 || o.Iterations > MaxIterations {
		return Result{}, fmt.Errorf("%d iterations: want 1 to %d", o.Iterations, MaxIterations)
	}
	if len(o.Signatures)+len(o.KEMs) == 0 {
		return Result{}, errors.New("no scheme to measure")
	}
	if o.Progress == nil {
		o.Progress = func(string, float64, time.Duration) {}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))

	m := &measurement{Options: o, watch: stopwatch{base: time.Now()}}
	for _, s := range o.Signatures {
		client, server := signatureJobs(s)
		m.jobs = append(m.jobs, server, client)
	}
	for _, k := range o.KEMs {
		client, server := kemJobs(k)
		m.jobs = append(m.jobs, server, client)
	}
	nothing := &job{what: "the clocks", scheme: &Scheme{}, parts: []string{""}}
	nothing.round = func(j *job) error { return j.time(0, func() error { return nil }) }
	m.jobs = append(m.jobs, nothing)

	started := time.Now()
	before := observe()
	began := m.watch.read()
	for _, j := range m.jobs {
		j.watch, j.series = &m.watch, make([]series, len(j.parts))
		for i := range j.series {
			j.series[i] = newSeries(o.Iterations)
		}
		if err := m.pilot(ctx, j); err != nil {
			return Result{}, err
		}
	}
	for turn := range turns {
		for _, j := range m.jobs {
			if ratio := cycles.Core(coreRounds); ratio > 0 {
				m.ratios = append(m.ratios, ratio)
			}
			if err := m.turn(ctx, j, o.Iterations*(turn+1)/turns-o.Iterations*turn/turns); err != nil {
				return Result{}, err
			}
		}
	}
	ended, err := m.watch.finish(ctx, began)
	if err != nil {
		return Result{}, err
	}
	r := Result{
		Format: Format, FormatVersion: FormatVersion, Device: o.Device, Started: started.UTC().Truncate(time.Second),
		Seconds: time.Since(started).Seconds(), Iterations: o.Iterations,
		Machine: ThisMachine(o.Version), Activity: observe().since(before),
	}
	if cycles.Check() == nil {
		r.Machine.Counter = &Counter{
			Name: cycles.Name, Hz: began.rate(ended), Invariant: cycles.Ask().Invariant, CorePerTick: spread(m.ratios),
		}
	}
	for _, j := range m.jobs[:len(m.jobs)-1] {
		if len(r.Schemes) == 0 || r.Schemes[len(r.Schemes)-1].Name != j.scheme.Name {
			r.Schemes = append(r.Schemes, *j.scheme)
		}
		s := &r.Schemes[len(r.Schemes)-1]
		s.Operations = append(j.operations(), s.Operations...) // the client's first
	}
	r.Overhead = nothing.operations()[0].Times
	for _, j := range m.jobs {
		r.Activity.Preempted += j.preempted
	}
	return r, nil
}

// measurement is a run in progress.
type measurement struct {
	Options
	watch  stopwatch
	jobs   []*job
	ratios []float64 // of the core's cycles to the counter's
}

// pilot runs a job a few times unmeasured.
func (m *measurement) pilot(ctx context.Context, j *job) error {
	m.Progress(j.what, 0, -1)
	allocated := totalAllocated()
	began := time.Now()
	for range pilotRounds {
		if err := j.rest(ctx); err != nil {
			return err
		}
	}
	j.pilot = time.Since(began).Seconds() / pilotRounds
	j.bytes = (totalAllocated() - allocated) / pilotRounds
	return nil
}

// turn measures n rounds of a job.
func (m *measurement) turn(ctx context.Context, j *job, n int) error {
	for n > 0 {
		m.tell(j)
		runtime.GC()
		if err := j.rest(ctx); err != nil { // what the collector and the other schemes drove from the caches
			return err
		}
		began, allocated, batch := time.Now(), uint64(0), 0
		for batch < min(n, batchRounds) && allocated < batchBytes && time.Since(began) < batchTime {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := j.measure(); err != nil {
				return err
			}
			batch++
			allocated += j.bytes
		}
		j.seconds += time.Since(began).Seconds()
		j.rounds += batch
		n -= batch
	}
	return nil
}

func (m *measurement) tell(j *job) {
	done, left := m.progress()
	m.Progress(j.what, done, left)
}

// progress is how much is done, and how long the rest takes at the pace so far.
func (m *measurement) progress() (done float64, left time.Duration) {
	var spent, rest float64
	for _, j := range m.jobs {
		spent += j.seconds
		pace := j.pilot
		if j.rounds > 0 {
			pace = j.seconds / float64(j.rounds)
		}
		rest += pace * float64(m.Iterations-j.rounds)
	}
	if spent+rest == 0 {
		return 0, 0
	}
	return spent / (spent + rest), time.Duration(rest * float64(time.Second))
}

func totalAllocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// series are the samples of one operation.
type series struct {
	ns        []int64
	ticks     []uint64
	preempted []bool
}

func newSeries(n int) series {
	return series{ns: make([]int64, 0, n), ticks: make([]uint64, 0, n), preempted: make([]bool, 0, n)}
}

func (s *series) add(ns int64, ticks uint64, preempted bool) {
	s.ns, s.ticks, s.preempted = append(s.ns, ns), append(s.ticks, ticks), append(s.preempted, preempted)
}

// and sums two parts sample by sample.
func (s *series) and(other series) series {
	sum := newSeries(len(s.ns))
	for i := range s.ns {
		sum.add(s.ns[i]+other.ns[i], s.ticks[i]+other.ticks[i], s.preempted[i] || other.preempted[i])
	}
	return sum
}

// operation counts what is noisy before it sorts the samples.
func (s *series) operation(name string) Operation {
	o := Operation{Name: name, Side: Side(name)}
	ordered := append([]int64(nil), s.ns...)
	o.NS = spread(ordered)
	limit := o.NS.Outlier()
	for i, ns := range s.ns {
		outlier := float64(ns) > limit
		if outlier {
			o.Outliers++
		}
		if s.preempted[i] {
			o.Preempted++
		}
		if outlier || s.preempted[i] {
			o.Noisy++
		}
	}
	if cycles.Check() == nil {
		c := spread(append([]uint64(nil), s.ticks...))
		o.Cycles = &c
	}
	return o
}

// job is what one side does with one scheme: a round of one or two operations that are timed, and what must be done
// between them.
type job struct {
	what   string // for people
	scheme *Scheme
	parts  []string // operations
	whole  string   // the name of both together; empty if there is one
	round  func(*job) error

	watch  *stopwatch
	idle   bool // a round of the warming kind: nothing is kept
	series []series

	pilot, seconds float64 // of a round before the run; of all rounds so far
	rounds         int
	bytes          uint64 // that a round allocates
	preempted      int64  // times, in all samples
}

// rest is a round that is not measured.
func (j *job) rest(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.idle = true
	defer func() { j.idle = false }()
	return j.measure()
}

func (j *job) measure() error {
	if err := j.round(j); err != nil {
		return fmt.Errorf("%s: %w", j.what, err)
	}
	return nil
}

// time is the only place where anything is timed.
func (j *job) time(part int, f func() error) error {
	switches := involuntarySwitches()
	ns := time.Since(j.watch.base)
	ticks := cycles.Now()
	err := f()
	ticksAfter := cycles.Now()
	nsAfter := time.Since(j.watch.base)
	preempted := involuntarySwitches() - switches
	if err != nil {
		return err
	}
	if ticksAfter < ticks {
		return fmt.Errorf("the %s went back: it differs between cores; taskset --cpu-list 0 would keep pqlab on one", cycles.Name)
	}
	if !j.idle {
		j.series[part].add(int64(nsAfter-ns), ticksAfter-ticks, preempted > 0)
		j.preempted += preempted
	}
	return nil
}

// operations is what the samples came to, the whole before its parts.
func (j *job) operations() []Operation {
	var all []Operation
	if j.whole != "" {
		both := j.series[0].and(j.series[1])
		all = append(all, both.operation(j.whole))
	}
	for i, p := range j.parts {
		all = append(all, j.series[i].operation(p))
	}
	return all
}

// involuntarySwitches of the calling thread (getrusage(2), RUSAGE_THREAD).
func involuntarySwitches() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0 // cannot happen: both arguments are right
	}
	return int64(u.Nivcsw)
}

// stopwatch tells monotonic time from base on.
type stopwatch struct{ base time.Time }

// reading is one moment on both clocks.
type reading struct {
	at    time.Duration
	ticks uint64
}

// read takes the closest of several pairs.
func (w stopwatch) read() (best reading) {
	closest := time.Hour
	for range 50 {
		before := time.Since(w.base)
		ticks := cycles.Now()
		after := time.Since(w.base)
		if after-before < closest {
			closest = after - before
			best = reading{before + closest/2, ticks}
		}
	}
	return best
}

// shortestSpan tells the counter's rate to about a millionth.
const shortestSpan = 50 * time.Millisecond

// finish reads the clocks at the end of a run, which it makes long enough.
func (w stopwatch) finish(ctx context.Context, began reading) (reading, error) {
	if rest := shortestSpan - (time.Since(w.base) - began.at); rest > 0 {
		t := time.NewTimer(rest)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	return w.read(), ctx.Err()
}

// rate of the counter, in Hz.
func (r reading) rate(later reading) float64 {
	return float64(later.ticks-r.ticks) / (later.at - r.at).Seconds()
}
