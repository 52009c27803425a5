package capture

import (
	"container/heap"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// late is how long after its time stamp a packet may come out of the kernel and still find its place. It is stamped
	// before it waits for a processor (ksoftirqd), for tens of milliseconds on a busy machine.
	late = 250 * time.Millisecond
	// every is how often the reader looks whose turn has come.
	every = 20 * time.Millisecond
	// maxHeld is how many bytes of packets may wait for their turn.
	maxHeld = 64 << 20
	// maxUnwritten is how many bytes are collected for one write.
	maxUnwritten = 256 << 10
	// flushEvery is how long what is written may be kept back while packets come without a pause.
	flushEvery = 100 * time.Millisecond
	// secretsPatience is how long the end of a capture waits for the last secrets.
	secretsPatience = time.Second
)

// File is a pcapng file that several taps write to.
//
// Its packets are in the order of their time stamps, whichever tap saw them: each waits until every other tap has been
// read up to its time, and secrets, if they are to follow, are known up to there. A packet that the kernel hands over
// more than a quarter of a second after its time, or for which more than 64 MiB would have to wait, is written out of order and
// counted (Unordered); none is left out.
//
// The fields are set before the first tap.
type File struct {
	MaxPackets uint64 // after so many the file is complete; 0: no limit
	MaxBytes   int64  // before it gets larger the file is complete, or the next begins; 0: no limit
	// Next gives the writer of the file that follows one of MaxBytes, which gets all blocks that it needs; nil: none follows.
	Next func() (io.Writer, error)
	// CutESP writes datagrams of many ESP packets, which the kernel passes as one (UDP_SEGMENT, UDP_GRO), as the datagrams
	// that the wire carries. Nobody can decrypt the others.
	CutESP bool

	comment string
	done    chan struct{} // closed when nothing is written any more: a limit, or an error

	mu        sync.Mutex
	w         io.Writer
	err       error // the first; nothing is written after it
	over      bool  // done is closed
	begun     bool  // the section header is in out
	out       []byte
	size      int64 // bytes of this file, with those of out
	written   int64 // of size, those that w took
	flushed   int64 // when the reader last wrote, nanoseconds since 1970
	packets   uint64
	inFile    bool // this file has a packet
	last      int64
	unordered uint64

	all     []*Tap // by their id
	open    []*Tap
	turn    uint64 // counts changes of open
	held    queue
	heldLen int
	numbers uint64
	slab    slab
	reader  *reader // nil while no tap is open

	secrets  [][]byte // every block of them, for the next file
	follow   bool     // secrets are to follow
	until    int64    // they are known up to here
	learned  chan struct{}
	announce map[destination]string // comments for packets to come
	follows  map[destination]uint32 // the SPI that took the place of one
}

// NewFile begins a pcapng file with a comment. The writer is the caller's to close, after the last tap's Close.
func NewFile(w io.Writer, comment string) *File {
	return &File{w: w, comment: comment, done: make(chan struct{}), learned: make(chan struct{}, 1)}
}

// Done is closed when the file is complete by its limits, or cannot be written.
func (f *File) Done() <-chan struct{} { return f.done }

// Unordered counts the packets that are out of order.
func (f *File) Unordered() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unordered
}

// Flush writes out what has been captured, whatever waits for its turn, and gives the first error that any writing had.
func (f *File) Flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readAll()
	f.emit(math.MaxInt64)
	f.flush()
	return f.err
}

// Close closes all taps of the file, in one moment, waits up to a second for the secrets until then, and completes it.
func (f *File) Close() error {
	f.mu.Lock()
	taps := slices.Clone(f.open)
	f.mu.Unlock()
	for _, t := range taps {
		_ = t.refuse() // Close tells its error
	}
	f.awaitSecrets(time.Now())
	var errs []error
	for _, t := range taps {
		if _, err := t.Close(); err != nil && f.failure() == nil { // what the file has is told once
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, f.failure())...)
}

func (f *File) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// SecretsFollow makes packets wait for the secrets of their time, which Learn brings at least every second.
func (f *File) SecretsFollow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follow = true
}

// NoMoreSecrets makes packets not wait any longer.
func (f *File) NoMoreSecrets() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follow = false
	f.toldOfSecrets()
}

// Learn takes secrets. What the file has of TLS it gets before any packet that still waits. The keys of SAs are not
// written, but the first packet under each SA gets a comment.
func (f *File) Learn(s Secrets) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(s.TLS) > 0 {
		b := appendSecrets(nil, s.TLS)
		f.secrets = append(f.secrets, b)
		f.begin()
		f.put(b)
	}
	for _, sa := range s.SAs {
		if f.announce == nil {
			f.announce, f.follows = map[destination]string{}, map[destination]uint32{}
		}
		if sa.Replaces != 0 {
			f.follows[destination{sa.Dst, sa.Replaces}] = sa.SPI
		}
		f.announce[destination{sa.Dst, sa.SPI}] = sa.comment()
	}
	f.until = max(f.until, s.Until.UnixNano())
	f.toldOfSecrets()
}

func (f *File) toldOfSecrets() {
	select {
	case f.learned <- struct{}{}:
	default:
	}
	f.reader.wake()
}

func (f *File) awaitSecrets(at time.Time) {
	patience := time.NewTimer(secretsPatience)
	defer patience.Stop()
	for {
		f.mu.Lock()
		enough := !f.follow || f.until >= at.UnixNano() || f.over
		f.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-f.learned:
		case <-patience.C:
			return
		}
	}
}

// What follows needs the lock.

// add begins to read a tap.
func (f *File) add(t *Tap) error {
	f.begin()
	t.id = len(f.all)
	f.put(appendInterface(nil, t.described))
	if f.err != nil {
		return f.err
	}
	if f.reader == nil {
		r, err := newReader()
		if err != nil {
			return err
		}
		f.reader = r
		go f.read(r)
	}
	f.all = append(f.all, t)
	f.open = append(f.open, t)
	f.turn++
	f.reader.wake()
	return nil
}

// remove ends the reading of a tap. With the last one it completes the file, and gives the reader, which ends.
func (f *File) remove(t *Tap) *reader {
	f.open = slices.DeleteFunc(f.open, func(o *Tap) bool { return o == t })
	f.turn++
	if len(f.open) > 0 {
		return nil
	}
	r := f.reader
	f.reader = nil
	r.wake()
	f.emit(math.MaxInt64)
	f.statistics()
	f.flush()
	return r
}

// begin writes the section header and what a file that follows another needs.
func (f *File) begin() {
	if f.begun {
		return
	}
	f.begun = true
	f.put(appendSection(nil, f.comment))
	for _, t := range f.all {
		f.put(appendInterface(nil, t.described))
	}
	for _, b := range f.secrets {
		f.put(b)
	}
}

func (f *File) statistics() {
	for _, t := range f.all {
		t.countDrops()
		f.put(appendStatistics(nil, t.id, t.begin.UnixNano(), time.Now().UnixNano(), t.stats))
	}
}

// put adds a block.
func (f *File) put(b []byte) { f.append(func(out []byte) []byte { return append(out, b...) }) }

func (f *File) append(block func(out []byte) []byte) {
	if f.err != nil {
		return
	}
	before := len(f.out)
	f.out = block(f.out)
	f.size += int64(len(f.out) - before)
	if len(f.out) >= maxUnwritten {
		f.flush()
	}
}

// flush writes whole blocks only. Where a disk is full, it takes back the part of a block that found room.
func (f *File) flush() {
	if len(f.out) == 0 {
		return
	}
	n, err := f.w.Write(f.out)
	if err != nil {
		if file, ok := f.w.(interface{ Truncate(int64) error }); ok && n > 0 {
			_ = file.Truncate(f.written + wholeBlocks(f.out[:n])) // of what is no regular file nothing can be taken back
		}
		f.fail(err)
	}
	f.written += int64(n)
	f.out = f.out[:0]
}

func (f *File) fail(err error) {
	if f.err == nil {
		f.err = err
	}
	f.finish()
}

// finish lets nothing more be written but statistics.
func (f *File) finish() {
	if !f.over {
		f.over = true
		close(f.done)
	}
	for _, p := range f.held {
		p.tap.stats.Captured--
	}
	clear(f.held)
	f.held, f.heldLen = f.held[:0], 0
}

// hold keeps a packet until its turn.
func (f *File) hold(p *frame) {
	if f.over {
		return
	}
	f.numbers++
	p.number = f.numbers
	p.tap.stats.Captured++
	heap.Push(&f.held, p)
	f.heldLen += len(p.data) + packetOverhead
	for f.heldLen > maxHeld {
		f.oldest()
	}
}

// emit writes the packets whose turn has come: those up to a moment.
func (f *File) emit(until int64) {
	for len(f.held) > 0 && f.held[0].at <= until {
		f.oldest()
	}
}

// oldest writes the oldest packet that waits.
func (f *File) oldest() {
	p := heap.Pop(&f.held).(*frame)
	f.heldLen -= len(p.data) + packetOverhead
	if f.CutESP && p.tap.described.link == linkEthernet && p.length == len(p.data) { // now, when the SAs are known
		if all := cut(p.data, func(d destination) uint32 { return f.follows[d] }); all != nil {
			p.tap.stats.Captured += uint64(len(all)) - 1
			for _, b := range all {
				f.write(&frame{at: p.at, tap: p.tap, direction: p.direction, length: len(b), data: b})
			}
			return
		}
	}
	f.write(p)
}

// write writes a packet, or begins the next file with it, or finds that the file is complete.
func (f *File) write(p *frame) {
	comment := f.commentOn(p)
	if f.MaxBytes > 0 && f.inFile && f.size+int64(len(p.data)+len(comment)+packetOverhead)+f.endSize() > f.MaxBytes {
		if f.Next == nil {
			f.finish()
		} else {
			f.next()
		}
	}
	if f.over {
		p.tap.stats.Captured--
		return
	}
	f.append(func(out []byte) []byte { return appendPacket(out, p, p.tap.id, comment) })
	f.inFile = true
	if p.at < f.last {
		f.unordered++
	}
	f.last = max(f.last, p.at)
	if f.packets++; f.packets == f.MaxPackets {
		f.finish()
	}
}

// endSize bounds the bytes of statistics.
func (f *File) endSize() int64 { return int64(len(f.all)) * 2 * packetOverhead }

// next completes the file and begins the one that follows.
func (f *File) next() {
	f.statistics()
	f.flush()
	if f.err != nil {
		return
	}
	w, err := f.Next()
	if err != nil {
		f.fail(err)
		return
	}
	f.w, f.size, f.written, f.begun, f.inFile = w, 0, 0, false, false
	f.begin()
}

// commentOn is what is said of the first packet under an SA.
func (f *File) commentOn(p *frame) string {
	if len(f.announce) == 0 || p.tap.described.link != linkEthernet {
		return ""
	}
	o, ok := espOf(p.data)
	if !ok {
		return ""
	}
	comment := f.announce[destination{o.dst, o.spi}]
	if comment != "" {
		delete(f.announce, destination{o.dst, o.spi})
	}
	return comment
}

// wholeBlocks counts the bytes of the blocks that are complete.
func wholeBlocks(b []byte) int64 {
	var whole int64
	for len(b) >= 8 {
		n := int(le32(b[4:]))
		if n > len(b) {
			break
		}
		whole += int64(n)
		b = b[n:]
	}
	return whole
}
