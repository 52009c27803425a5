// Package traffic makes load and measures what becomes of it: TCP and UDP sources, the sinks they send to and relays in
// between. It runs inside the process that has the node's network: its sockets are made wherever the caller is.
//
// The source counts what it sent (Sent), the sink what arrived. Whoever runs both carries the Sent from the one to the
// other's Finish, which makes the Result. So the end of a flow is known and not guessed from silence, and loss is exact.
//
// All times are Instants: CLOCK_MONOTONIC, which every process of one machine shares. A one-way latency is therefore
// the difference of two readings of one clock; between two machines it would mean nothing.
package traffic

import (
	"time"

	"golang.org/x/sys/unix"
)

// The protocols of a flow.
const (
	TCP = "tcp"
	UDP = "udp"
)

// Instant is a reading of CLOCK_MONOTONIC in nanoseconds.
type Instant int64

// Now reads the clock by a system call. Instants of different processes of one machine may be compared.
func Now() Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("traffic: CLOCK_MONOTONIC: " + err.Error()) // every Linux has it
	}
	return Instant(ts.Nano())
}

// InstantOf translates a time read with time.Now in this process. A time that lost its monotonic reading (by being
// sent, stored or converted) is translated by the wall clock, and is wrong by however much that was set meanwhile.
func InstantOf(t time.Time) Instant { return newClock().at(t) }

// Add gives the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub gives the time that passed from u to i.
func (i Instant) Sub(u Instant) time.Duration { return time.Duration(i - u) }

// clock reads Instants without a system call: the runtime's clock is CLOCK_MONOTONIC too, less an offset that it does
// not tell.
type clock struct {
	base Instant
	ref  time.Time
}

func newClock() clock {
	var best clock
	least := time.Duration(1<<63 - 1)
	for range 4 { // the narrowest bracket is the best reading
		ref := time.Now()
		i := Now()
		if d := time.Since(ref); d < least {
			least = d
			best = clock{base: i - Instant(d/2), ref: ref}
		}
	}
	return best
}

func (c clock) now() Instant           { return c.base + Instant(time.Since(c.ref)) }
func (c clock) at(t time.Time) Instant { return c.base + Instant(t.Sub(c.ref)) }

// Sent is what a source says of a flow when it has ended. It is plain data, made to travel to the sink's Finish.
type Sent struct {
	Proto     string   `json:"proto"`
	Start     Instant  `json:"start_ns"` // when the first packet was due
	End       Instant  `json:"end_ns"`   // when the schedule ended
	Last      Instant  `json:"last_ns"`  // UDP: when the last packet left, which may be later
	FrameSize int      `json:"frame_size,omitempty"`
	Packets   []uint64 `json:"packets"` // of each stream; TCP: data segments
	Bytes     uint64   `json:"bytes"`   // UDP: of IP packets; TCP: of the streams

	Lateness      *Latency      `json:"lateness_us,omitempty"` // UDP: by how much packets left after they were due
	Behind        time.Duration `json:"behind_ns,omitempty"`   // UDP: schedule given up, because the socket did not take it
	Refused       uint64        `json:"refused,omitempty"`     // UDP: sends answered by "port unreachable", and repeated
	RoundTrip     *Latency      `json:"round_trip_us,omitempty"`
	Retransmitted uint64        `json:"retransmitted,omitempty"` // TCP: segments
	Congestion    string        `json:"congestion,omitempty"`    // TCP: the source's congestion control, as its kernel names it
}

// Total is the number of packets of all streams.
func (s Sent) Total() uint64 {
	var n uint64
	for _, p := range s.Packets {
		n += p
	}
	return n
}

// Result is what became of a flow.
type Result struct {
	Name    string `json:"name,omitempty"` // Name, From and To are the caller's to fill in
	From    string `json:"from"`
	To      string `json:"to"`
	Proto   string `json:"proto"`
	Streams int    `json:"streams"`

	// UDP: datagrams, counted exactly. TCP: bytes of the streams, for no two kernels on the way cut them into the same
	// segments; Lost is 0: what was lost on the way was sent again and is in Retransmitted.
	Sent       uint64 `json:"sent"`
	Received   uint64 `json:"received"`   // without duplicates
	Lost       uint64 `json:"lost"`       // Sent − Received, wherever they were lost
	Duplicated uint64 `json:"duplicated"` // arrivals of a datagram after its first
	Reordered  uint64 `json:"reordered"`  // first arrivals behind a later one of their stream (RFC 4737 section 3.3)

	// SocketDrops counts those of Lost that reached the sink's socket and found it full: the sink was too slow, not the
	// way lossy. It is the socket's own counter (SK_MEMINFO_DROPS); it counts buffers, so packets that arrived
	// in one GRO buffer may count as one.
	SocketDrops   uint64 `json:"socket_drops"`
	Unclassified  uint64 `json:"unclassified,omitempty"`  // arrivals too late to tell a first arrival from a duplicate
	Foreign       uint64 `json:"foreign,omitempty"`       // datagrams to the sink's port that were not of the flow
	Retransmitted uint64 `json:"retransmitted,omitempty"` // TCP: segments, as the source's kernel counted them
	Congestion    string `json:"congestion,omitempty"`    // TCP: what decided on the rate: "cubic", "bbr", …

	FrameSize     int           `json:"frame_size,omitempty"`
	Bytes         uint64        `json:"bytes"` // received; UDP: of IP packets without duplicates, TCP: of the streams
	BitsPerSecond float64       `json:"bits_per_second"`
	Start         Instant       `json:"start_ns"`
	Duration      time.Duration `json:"duration"` // ns

	// Latency is one-way for UDP: from just before the send to just after the receive system call of its batch. TCP: the
	// round trips of a small request beside the load.
	Latency  *Latency      `json:"latency_us,omitempty"`
	Lateness *Latency      `json:"lateness_us,omitempty"`
	Behind   time.Duration `json:"behind,omitempty"` // ns; see Sent
	Bins     []Bin         `json:"bins"`
	Losses   []Loss        `json:"losses,omitempty"`
}

// Bin is what arrived within 100 ms.
type Bin struct {
	At   int64  `json:"at_ms"` // its beginning, in milliseconds after the Result's Start
	Bits uint64 `json:"bits"`
}

// Loss is a run of sequence numbers that never arrived, with the send times of the packets around it that did: they
// were sent after After and before Before. At most Count of First to Last are missing; fewer than all of them where a
// result had so many runs that neighbours were put together.
type Loss struct {
	Stream int     `json:"stream"`
	First  uint64  `json:"first"`
	Last   uint64  `json:"last"`
	Count  uint64  `json:"count"`
	After  Instant `json:"after_ns"`
	Before Instant `json:"before_ns"`
}

// Latency is a distribution in microseconds.
type Latency struct {
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
	Mean  float64 `json:"mean"`
	Count int64   `json:"count"`
}
