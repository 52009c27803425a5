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

// A trace of fates is text: a head of five lines, and then a line for each packet in the order in which they came out,
// copies too:
//
//	pqlab fates 2
//	link NAME
//	ends NAME…
//	seed NUMBER
//	shape WORDS
//	FROM NUMBER SIZE FATE NANOSECONDS TO FLIP
//
// The head is a Header. FROM and TO are ports (TO of a lost packet is -1), NUMBER is Packet.Number, SIZE is in bytes, FATE
// one of Delivered's and its likes' names, NANOSECONDS lie between entering and coming out, and FLIP is Packet.Flip.
const traceHead = "pqlab fates 2"

var traceNames = [fates]string{
	Delivered: "delivered", LostQueue: "queue", LostChance: "chance", LostTrace: "trace", LostOutage: "outage", LostRetries: "retries",
}

// Header says what a trace is of. No word of it has an end of line.
type Header struct {
	Link  string
	Ends  []string // who sends at each port
	Seed  uint64   // of the link's random choices; a replay has none
	Shape string   // in words
}

// The lines of a head that a reader may want to point to, from 1.
const (
	LinkLine  = 2
	EndsLine  = 3
	ShapeLine = 5
	headLines = 5
)

func (h Header) String() string {
	return fmt.Sprintf("%s\nlink %s\nends %s\nseed %d\nshape %s\n", traceHead, h.Link, strings.Join(h.Ends, " "), h.Seed, h.Shape)
}

// Recorder is a Medium that writes down the fates that another decides. It takes single frames only, so that each has a
// fate of its own.
type Recorder struct {
	Medium
	to    *bufio.Writer
	line  []byte
	noted []uint64 // packets, by port
	err   error
	out   func(port int, p Packet) // of the Leave that goes on
	both  func(port int, p Packet) // notes a packet and gives it out
}

// Record begins a trace of m, which nothing has entered yet. to gets pieces of 64 KiB.
func Record(m Medium, to io.Writer, h Header) *Recorder {
	r := &Recorder{Medium: m, to: bufio.NewWriterSize(to, 1<<16)}
	r.both = func(port int, p Packet) {
		r.note(port, p)
		r.out(port, p)
	}
	_, r.err = r.to.WriteString(h.String())
	return r
}

// Whole implements Medium.
func (r *Recorder) Whole(int) int { return 0 }

// Leave implements Medium.
func (r *Recorder) Leave(now time.Duration, out func(port int, p Packet)) {
	r.out = out
	r.Medium.Leave(now, r.both)
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
	for len(r.noted) <= p.From {
		r.noted = append(r.noted, 0)
	}
	if !p.Copy {
		r.noted[p.From]++
	}
}

// Noted is of how many packets of a port the trace tells so far.
func (r *Recorder) Noted(port int) uint64 {
	if port < 0 || port >= len(r.noted) {
		return 0
	}
	return r.noted[port]
}

// Flush writes out what is buffered, and returns the first error of writing, after which nothing more is written. The
// Recorder may go on.
func (r *Recorder) Flush() error {
	if r.err == nil {
		r.err = r.to.Flush()
	}
	return r.err
}

// Trace is a trace of fates that was read.
type Trace struct {
	Header
	ports []portTrace
}

// portTrace is of what entered by one port.
type portTrace struct {
	packets  []traced             // by number
	copies   map[int][]tracedFate // of a packet, by its number
	overtake bool                 // a packet came out before one that had entered earlier
}

type traced struct {
	size int32
	tracedFate
}

type tracedFate struct {
	fate  Fate
	to    int16
	delay time.Duration
	flip  int
}

// ErrTrace is wrapped by the errors of ReadTrace that are about the text; they are TraceErrors.
var ErrTrace = errors.New("not a trace of fates")

// TraceError says where a text is not a trace.
type TraceError struct {
	Line int // from 1
	Err  error
}

func (e *TraceError) Error() string   { return fmt.Sprintf("%v: line %d: %v", ErrTrace, e.Line, e.Err) }
func (e *TraceError) Unwrap() []error { return []error{ErrTrace, e.Err} }

// maxPort is the largest port of a trace.
const maxPort = 1023

// ReadTrace reads what a Recorder wrote. Of each port it takes the packets up to the first that is missing: those that
// were on their way when the recording ended have no fate.
func ReadTrace(from io.Reader) (*Trace, error) {
	lines, number := bufio.NewScanner(from), 0
	next := func() bool {
		number++
		return lines.Scan()
	}
	t := &Trace{}
	for number < headLines {
		if !next() {
			return nil, &TraceError{number, errors.Join(errors.New("ends within its head"), lines.Err())}
		}
		if err := t.head(number, lines.Text()); err != nil {
			return nil, &TraceError{number, err}
		}
	}
	// Packets come out in another order than they entered in: those wait for the ones before them.
	waiting := map[int]map[uint64][]tracedLine{}
	last := map[int]uint64{}
	for next() {
		l, err := parseTraced(lines.Text())
		if err != nil {
			return nil, &TraceError{number, err}
		}
		for len(t.ports) <= l.from {
			t.ports = append(t.ports, portTrace{})
		}
		p := &t.ports[l.from]
		if l.fate == Delivered {
			p.overtake = p.overtake || l.number < last[l.from]
			last[l.from] = max(last[l.from], l.number)
		}
		if l.number > uint64(len(p.packets)) {
			if waiting[l.from] == nil {
				waiting[l.from] = map[uint64][]tracedLine{}
			}
			waiting[l.from][l.number] = append(waiting[l.from][l.number], l)
			continue
		}
		for more := []tracedLine{l}; more != nil; {
			for _, l := range more {
				p.add(l)
			}
			n := uint64(len(p.packets))
			more = waiting[l.from][n]
			delete(waiting[l.from], n)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, &TraceError{number, err}
	}
	return t, nil
}

// add takes the next packet, or a copy of one that is there.
func (p *portTrace) add(l tracedLine) {
	if n := int(l.number); n < len(p.packets) {
		if p.copies == nil {
			p.copies = map[int][]tracedFate{}
		}
		p.copies[n] = append(p.copies[n], l.tracedFate)
		return
	}
	p.packets = append(p.packets, traced{l.size, l.tracedFate})
}

// head reads a line of the header.
func (t *Trace) head(number int, text string) (err error) {
	if number == 1 {
		if text != traceHead {
			err = fmt.Errorf("is not %q", traceHead)
		}
		return err
	}
	key := [headLines + 1]string{2: "link", 3: "ends", 4: "seed", 5: "shape"}[number]
	value, ok := strings.CutPrefix(text, key+" ")
	switch {
	case !ok:
		return fmt.Errorf("does not begin with %q", key+" ")
	case key == "link":
		t.Link = value
	case key == "ends":
		t.Ends = strings.Fields(value)
	case key == "seed":
		t.Seed, err = strconv.ParseUint(value, 10, 64)
	default:
		t.Shape = value
	}
	return err
}

// tracedLine is a line of a trace.
type tracedLine struct {
	from   int
	size   int32
	number uint64
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
	l.size = int32(number(2, "size", 0, 1<<31-1))
	l.delay = time.Duration(number(4, "delay", 0, int64(24*time.Hour)))
	l.to = int16(number(5, "port", Nowhere, maxPort))
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

// port is what is known of one; nothing of one by which nothing has entered.
func (r *Replay) port(port int) replayed {
	if port < 0 || port >= len(r.ports) {
		return replayed{}
	}
	return r.ports[port]
}

// Counters tell what became of what port sent.
func (r *Replay) Counters(port int) Counters { return r.port(port).count }

// Differing is how many packets of a port had another size than those of the trace: then they are not the same packets.
func (r *Replay) Differing(port int) uint64 { return r.port(port).differing }

// Beyond is how many packets of a port came after the trace's last.
func (r *Replay) Beyond(port int) uint64 {
	return r.port(port).entered - min(r.port(port).entered, uint64(r.trace.Packets(port)))
}

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
	known := &r.trace.ports[port]
	n := at.next
	at.next = (n + 1) % len(known.packets)
	if known.packets[n].size != int32(p.Size) {
		at.differing++
	}
	r.meet(now, at, p, known.packets[n].tracedFate, known.overtake)
	for _, f := range known.copies[n] {
		q := p
		q.Copy, q.Data = true, append([]byte(nil), p.Data...)
		r.meet(now, at, q, f, known.overtake)
	}
}

// meet lets a packet have a fate of the trace.
func (r *Replay) meet(now time.Duration, at *replayed, p Packet, f tracedFate, overtake bool) {
	p.Fate, p.Flip, p.Due, p.to = f.fate, f.flip, now+f.delay, f.to
	if !f.fate.Lost() && !overtake {
		p.Due = max(p.Due, at.last)
		at.last = p.Due
	}
	r.line.push(p.Due, &p)
}

// Next implements Medium.
func (r *Replay) Next() (at time.Duration, ok bool) { return r.line.first() }

// Leave implements Medium.
func (r *Replay) Leave(now time.Duration, out func(port int, p Packet)) {
	for at, ok := r.line.first(); ok && at <= now; at, ok = r.line.first() {
		p := r.line.pop()
		p.Due = at
		r.ports[p.From].count.Count(*p)
		to := int(p.to)
		if p.Fate.Lost() {
			to = Nowhere
		}
		out(to, *p)
	}
}
