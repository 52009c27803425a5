package medium

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"pqlab/topology"
)

// What was recorded is replayed: the same packets have the same fates and delays, losses in the queue and outages too.
func TestReplay(t *testing.T) {
	t.Parallel()
	lost := 0
	shapes(t, func(t *testing.T, r *rand.Rand, s topology.Shape) {
		sends := somehow(r, 500, 100*time.Microsecond)
		var text bytes.Buffer
		recorder := Record(newTest(s), &text, testHeader)
		first := drive(t, recorder, sends)
		if err := recorder.Flush(); err != nil {
			t.Fatal(err)
		}
		trace, err := ReadTrace(bytes.NewReader(text.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		replay := NewReplay(trace)
		again := drive(t, replay, sends)
		type key struct {
			from   int
			number uint64
			due    time.Duration
			fate   Fate
			flip   int
			port   int
		}
		all := map[key]int{}
		for _, p := range first {
			all[key{p.From, p.Number, p.Due, p.Fate, p.Flip, p.port}]++
			if p.Fate.Lost() {
				lost++
			}
		}
		for _, p := range again {
			all[key{p.From, p.Number, p.Due, p.Fate, p.Flip, p.port}]--
		}
		for k, n := range all {
			if n != 0 {
				t.Errorf("%+v: %d times more in the recording", k, n)
			}
		}
		for port := range 2 {
			if replay.Differing(port) != 0 || replay.Counters(port).Packets != uint64(trace.Packets(port)) {
				t.Errorf("port %d: %d differ, %+v", port, replay.Differing(port), replay.Counters(port))
			}
		}
		// Later, and a second time, they have the same fates; and nothing overtakes that did not.
		var twice []send
		for i := range 2 * len(sends) {
			s := sends[i%len(sends)]
			s.at = time.Duration(i) * 30 * time.Microsecond
			twice = append(twice, s)
		}
		replay = NewReplay(trace)
		var last [2]uint64
		for _, p := range drive(t, replay, twice) {
			if p.Fate.Lost() {
				continue
			}
			if s.Reordering == 0 && !s.Unordered && p.Number < last[p.From] {
				t.Errorf("packet %d of port %d after %d", p.Number, p.From, last[p.From])
			}
			last[p.From] = max(last[p.From], p.Number)
		}
		for port := range 2 {
			var want [fates]uint64
			for _, p := range first {
				if p.From == port {
					want[p.Fate] += 2
				}
			}
			if got := replay.Counters(port).Fates; got != want || replay.Differing(port) != 0 {
				t.Errorf("port %d: twice %v, want %v", port, got, want)
			}
		}
	})
	if lost == 0 {
		t.Error("nothing was ever lost")
	}
}

// The data of a copy is its own: who gets one may change it, and use its memory again.
func TestCopiesShareNoData(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	recorder := Record(newTest(topology.Shape{Duplication: 1, Delay: time.Millisecond}), &text, testHeader)
	drive(t, recorder, evenly(10, time.Millisecond, 100))
	if err := recorder.Flush(); err != nil {
		t.Fatal(err)
	}
	trace, err := ReadTrace(&text)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]Medium{
		"link": newTest(topology.Shape{Duplication: 1}), "delayed": newTest(topology.Shape{Duplication: 1, Delay: time.Millisecond}), "replay": NewReplay(trace),
	} {
		for i := range 10 {
			m.Enter(time.Duration(i)*time.Millisecond, 0, Packet{Size: 100, Frames: 1, Data: []byte{1, byte(i)}})
		}
		copies := 0
		m.Leave(time.Hour, func(_ int, p Packet) {
			if p.Copy {
				copies++
			}
			if !bytes.Equal(p.Data, []byte{1, byte(p.Number)}) {
				t.Errorf("%s: packet %d has %v", name, p.Number, p.Data)
			}
			clear(p.Data)
		})
		if copies != 10 {
			t.Errorf("%s: %d copies of 10", name, copies)
		}
	}
}

// A recording may end while packets are on their way; what was on its way has no fate.
func TestRecordPart(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	r := Record(newTest(topology.Shape{Delay: 10 * time.Millisecond, LossTrace: []int{2, 1}}), &text, testHeader)
	for i := range 100 {
		r.Enter(time.Duration(i)*time.Millisecond, 0, Packet{Size: i, Frames: 1})
		r.Leave(time.Duration(i)*time.Millisecond, func(int, Packet) {})
	}
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	trace, err := ReadTrace(&text)
	if err != nil {
		t.Fatal(err)
	}
	if trace.Packets(0) != 90 || trace.Packets(1) != 0 || trace.Packets(-1) != 0 {
		t.Errorf("%d packets", trace.Packets(0))
	}
	replay := NewReplay(trace)
	for _, p := range drive(t, replay, evenly(90, time.Second, 7)) {
		if want := p.Number%3 == 2; p.Fate.Lost() != want || p.port != Nowhere && p.Due != p.Entered+10*time.Millisecond {
			t.Errorf("packet %d is %v after %v", p.Number, p.Fate, p.Due-p.Entered)
		}
	}
	if replay.Differing(0) != 89 { // one has 7 bytes
		t.Errorf("%d differ", replay.Differing(0))
	}
}

func TestRecordSaysWhatWentWrong(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	r := Record(newTest(topology.Shape{}), writer(func([]byte) (int, error) { return 0, full }), testHeader)
	drive(t, r, evenly(10_000, 0, 100))
	if err := r.Flush(); !errors.Is(err, full) {
		t.Error(err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func TestReadTraceRefuses(t *testing.T) {
	t.Parallel()
	const good = "0 0 100 delivered 5 1 0"
	for _, bad := range []string{
		"", "1 2 3", good + " 9", "x" + good, "-1" + good[1:], "1024" + good[1:], "0 -1 100 delivered 5 1 0", "0 0 -1 delivered 5 1 0",
		"0 0 100 vanished 5 1 0", "0 0 100 delivered -5 1 0", "0 0 100 delivered 5 -1 0", "0 0 100 queue 5 1 0", "0 0 100 delivered 5 1 -1",
		"0 0 100 delivered 99999999999999999 1 0", "0 0 100 delivered 5 1024 0", "0 99999999999999999999 100 delivered 5 1 0",
	} {
		_, err := ReadTrace(strings.NewReader(testHeader.String() + good + "\n" + bad + "\n"))
		var where *TraceError
		if !errors.Is(err, ErrTrace) || !errors.As(err, &where) || where.Line != headLines+2 {
			t.Errorf("%q: %v", bad, err)
		}
	}
	head := testHeader.String()
	for _, tt := range []struct {
		text string
		line int
	}{
		{"", 1}, {good, 1}, {strings.Replace(head, "fates 2", "fates 1", 1), 1}, {strings.Replace(head, "link", "lnk", 1), 2},
		{strings.Replace(head, "ends ", "ends", 1), 3}, {strings.Replace(head, "seed 7", "seed -7", 1), 4}, {strings.Replace(head, "shape", "", 1), 5},
		{head[:strings.Index(head, "seed")], 4}, {head + strings.Repeat("9", 1<<17), 6},
	} {
		var where *TraceError
		if _, err := ReadTrace(strings.NewReader(tt.text)); !errors.Is(err, ErrTrace) || !errors.As(err, &where) || where.Line != tt.line {
			t.Errorf("%.80q: %v", tt.text, err)
		}
	}
}

// What is said of a trace is read back.
func TestTraceHeader(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	if err := Record(newTest(topology.Shape{}), &text, testHeader).Flush(); err != nil {
		t.Fatal(err)
	}
	trace, err := ReadTrace(&text)
	if err != nil || !reflect.DeepEqual(trace.Header, testHeader) {
		t.Errorf("%+v, %v", trace, err)
	}
}

// Packets beyond the trace are counted, and so are those of a port of which it does not tell, which are lost.
func TestReplayBeyond(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	r := Record(newTest(topology.Shape{LossTrace: []int{1, 1}}), &text, testHeader)
	drive(t, r, evenly(10, time.Second, 100))
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	if r.Noted(0) != 10 || r.Noted(1) != 0 || r.Noted(-1) != 0 {
		t.Errorf("noted %d and %d", r.Noted(0), r.Noted(1))
	}
	trace, err := ReadTrace(&text)
	if err != nil {
		t.Fatal(err)
	}
	replay := NewReplay(trace)
	if replay.Beyond(0) != 0 || replay.Beyond(1) != 0 || replay.Counters(1).Packets != 0 {
		t.Error("beyond before anything was sent")
	}
	sends := evenly(25, time.Second, 100)
	for _, s := range evenly(3, time.Second, 100) {
		s.at, s.port = s.at+time.Minute, 1
		sends = append(sends, s)
	}
	drive(t, replay, sends)
	if replay.Beyond(0) != 15 || replay.Counters(0).Fates[LostTrace] != 12 {
		t.Errorf("%d beyond, %+v", replay.Beyond(0), replay.Counters(0))
	}
	if replay.Beyond(1) != 3 || replay.Counters(1).Fates[LostTrace] != 3 {
		t.Errorf("%d beyond, %+v", replay.Beyond(1), replay.Counters(1))
	}
}

var testHeader = Header{Link: "a-b", Ends: []string{"a", "b"}, Seed: 7, Shape: "rate 1Mbit/s, delay 5ms"}

// Whatever is read can be replayed, and every packet comes out.
func FuzzReadTrace(f *testing.F) {
	f.Add("0 0 100 delivered 5000000 1 0\n0 1 1514 chance 0 -1 0\n1 0 60 delivered 10 0 17\n0 0 100 delivered 6000000 1 0\n")
	f.Add("3 0 1 queue 1 -1 0\n3 2 1 outage 1 -1 0\n3 1 1 retries 1 -1 0\n")
	f.Add("0 1 100 delivered 5 1 0\n")
	f.Add("0 0 0 delivered 86400000000000 1023 17179869184\n")
	f.Fuzz(func(t *testing.T, text string) {
		trace, err := ReadTrace(strings.NewReader(testHeader.String() + text))
		if err != nil {
			return
		}
		var sends []send
		for port := range len(trace.ports) + 1 {
			for range trace.Packets(port) + 1 {
				sends = append(sends, send{0, port, 100})
			}
		}
		seen := map[[2]int]int{}
		for _, p := range drive(t, NewReplay(trace), sends) {
			if !p.Copy {
				seen[[2]int{p.From, int(p.Number)}]++
			}
		}
		if len(seen) != len(sends) {
			t.Errorf("of %d packets %d came out", len(sends), len(seen))
		}
	})
}
