package medium

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// A trace of fates is text: a first line that says what it is, and then a line for each packet in the order in which they
// came out, copies too:
//
//	FROM NUMBER SIZE FATE NANOSECONDS TO FLIP
//
// FROM and TO are ports (TO of a lost packet is -1), NUMBER is Packet.Number, SIZE is in bytes, FATE one of Delivered's
// and its likes' names, NANOSECONDS lie between entering and coming out, and FLIP is Packet.Flip.
const traceHead = "pqlab fates 1"

var traceNames = [fates]string{
	Delivered: "delivered", LostQueue: "queue", LostChance: "chance", LostTrace: "trace", LostOutage: "outage", LostRetries: "retries",
}

// Recorder is a Medium that writes down the fates that another decides. It takes single frames only, so that each has a
// fate of its own.
type Recorder struct {
	Medium
	to   *bufio.Writer
	line []byte
	err  error
}

// Record begins a trace of m, which nothing has entered yet.
func Record(m Medium, to io.Writer) *Recorder {
	r := &Recorder{Medium: m, to: bufio.NewWriterSize(to, 1<<16)}
	_, r.err = r.to.WriteString(traceHead + "\n")
	return r
}

// Whole implements Medium.
func (r *Recorder) Whole(int) int { return 0 }

// Leave implements Medium.
func (r *Recorder) Leave(now time.Duration, out func(port int, p Packet)) {
	r.Medium.Leave(now, func(port int, p Packet) {
		r.note(port, p)
		out(port, p)
	})
}

func (r *Recorder) note(port int, p Packet) {
	if r.err != nil {
		return
	}
	b := r.line[:0]
	for _, n := range []int64{int64(p.From), int64(p.Number), int64(p.Size)} {
		b = append(strconv.AppendInt(b, n, 10), ' ')
	}
	b = append(append(b, traceNames[p.Fate]...), ' ')
	b = append(strconv.AppendInt(b, int64(p.Due-p.Entered), 10), ' ')
	b = append(strconv.AppendInt(b, int64(port), 10), ' ')
	b = append(strconv.AppendInt(b, int64(p.Flip), 10), '\n')
	_, r.err = r.to.Write(b)
	r.line = b
}

// Flush writes out what is buffered, and returns the first error of writing. The Recorder may go on.
func (r *Recorder) Flush() error {
	if r.err != nil {
		return r.err
	}
	return r.to.Flush()
}

// Trace is a trace of fates that was read.
type Trace struct {
	ports []portTrace
}

// portTrace is of what entered by one port.
type portTrace struct {
	packets  []traced // by number
	overtake bool     // a packet came out before one that had entered earlier
}

type traced struct {
	size  int
	fates []tracedFate // of the packet and its copies; not empty
}

type tracedFate struct {
	fate  Fate
	delay time.Duration
	to    int
	flip  int
}

// ErrTrace is wrapped by the errors of ReadTrace that are about the text.
var ErrTrace = errors.New("not a trace of fates")

// maxPort is the largest port of a trace.
const maxPort = 1023

// ReadTrace reads what a Recorder wrote. Of each port it takes the packets up to the first that is missing: those that
// were on their way when the recording ended have no fate.
func ReadTrace(from io.Reader) (*Trace, error) {
	lines := bufio.NewScanner(from)
	if !lines.Scan() || lines.Text() != traceHead {
		return nil, errors.Join(fmt.Errorf("%w: the first line is not %q", ErrTrace, traceHead), lines.Err())
	}
	t := &Trace{}
	all := map[int]map[uint64]*traced{}
	last := map[int]uint64{}
	for number := 2; lines.Scan(); number++ {
		l, err := parseTraced(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrTrace, number, err)
		}
		if all[l.from] == nil {
			all[l.from] = map[uint64]*traced{}
			for len(t.ports) <= l.from {
				t.ports = append(t.ports, portTrace{})
			}
		}
		p := all[l.from][l.number]
		if p == nil {
			p = &traced{size: l.size}
			all[l.from][l.number] = p
		}
		p.fates = append(p.fates, l.tracedFate)
		if l.fate == Delivered {
			t.ports[l.from].overtake = t.ports[l.from].overtake || l.number < last[l.from]
			last[l.from] = max(last[l.from], l.number)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	for port, packets := range all {
		for n := uint64(0); packets[n] != nil; n++ {
			t.ports[port].packets = append(t.ports[port].packets, *packets[n])
		}
	}
	return t, nil
}

// tracedLine is a line of a trace.
type tracedLine struct {
	from, size int
	number     uint64
	tracedFate
}

func parseTraced(text string) (l tracedLine, err error) {
	fields := strings.Fields(text)
	if len(fields) != 7 {
		return l, fmt.Errorf("has %d fields, not 7", len(fields))
	}
	number := func(i int, what string, least, most int64) (n int64) {
		if err != nil {
			return 0
		}
		if n, err = strconv.ParseInt(fields[i], 10, 64); err == nil && (n < least || n > most) {
			err = fmt.Errorf("%s %d is outside %d to %d", what, n, least, most)
		}
		return n
	}
	const most = 1<<63 - 1
	l.from = int(number(0, "port", 0, maxPort))
	l.number = uint64(number(1, "number", 0, most))
	l.size = int(number(2, "size", 0, 1<<31-1))
	l.delay = time.Duration(number(4, "delay", 0, int64(24*time.Hour)))
	l.to = int(number(5, "port", Nowhere, maxPort))
	l.flip = int(number(6, "bit", 0, 1<<34))
	if err != nil {
		return l, err
	}
	for f, name := range traceNames {
		if name == fields[3] {
			l.fate = Fate(f)
			if l.fate.Lost() != (l.to == Nowhere) {
				return l, fmt.Errorf("a packet that is %s comes out at port %d", name, l.to)
			}
			return l, nil
		}
	}
	return l, fmt.Errorf("there is no fate %q; there are %s", fields[3], strings.Join(traceNames[:], ", "))
}

// Packets is how many packets of a port the trace tells of.
func (t *Trace) Packets(port int) int {
	if port < 0 || port >= len(t.ports) {
		return 0
	}
	return len(t.ports[port].packets)
}

// Replay is a Medium that gives the n-th packet of each port the fates that the n-th of a trace had, and, where the trace
// ends, begins it anew. It keeps the order of packets wherever the trace did. Packets of a port of which the trace does not
// tell are lost (trace).
type Replay struct {
	trace *Trace
	line  line
	ports []replayed
}

type replayed struct {
	next      int // in the trace
	entered   uint64
	last      time.Duration
	differing uint64
	count     Counters
}

// NewReplay makes one.
func NewReplay(t *Trace) *Replay { return &Replay{trace: t, ports: make([]replayed, len(t.ports))} }

// Counters tell what became of what port sent.
func (r *Replay) Counters(port int) Counters { return r.ports[port].count }

// Differing is how many packets of a port had another size than those of the trace: then they are not the same packets.
func (r *Replay) Differing(port int) uint64 { return r.ports[port].differing }

// Whole implements Medium.
func (r *Replay) Whole(int) int { return 0 }

// Enter implements Medium.
func (r *Replay) Enter(now time.Duration, port int, p Packet) {
	for len(r.ports) <= port {
		r.ports = append(r.ports, replayed{})
	}
	at := &r.ports[port]
	p.From, p.Number, p.Entered = port, at.entered, now
	at.entered++
	at.count.Packets++
	at.count.Bytes += uint64(p.Size)
	if r.trace.Packets(port) == 0 {
		p.Fate = LostTrace
		r.line.push(now, &p)
		return
	}
	known := r.trace.ports[port]
	packet := known.packets[at.next]
	at.next = (at.next + 1) % len(known.packets)
	if packet.size != p.Size {
		at.differing++
	}
	for i, f := range packet.fates {
		q := p
		if q.Copy = i > 0; q.Copy {
			q.Data = append([]byte(nil), p.Data...)
		}
		q.Fate, q.Flip = f.fate, f.flip
		q.Due = now + f.delay
		if !f.fate.Lost() && !known.overtake {
			q.Due = max(q.Due, at.last)
			at.last = q.Due
		}
		q.to = f.to
		r.line.push(q.Due, &q)
	}
}

// Next implements Medium.
func (r *Replay) Next() (at time.Duration, ok bool) { return r.line.first() }

// Leave implements Medium.
func (r *Replay) Leave(now time.Duration, out func(port int, p Packet)) {
	for at, ok := r.line.first(); ok && at <= now; at, ok = r.line.first() {
		p := r.line.pop()
		p.Due = at
		r.ports[p.From].count.Count(*p)
		to := p.to
		if p.Fate.Lost() {
			to = Nowhere
		}
		out(to, *p)
	}
}
