// Package report is what a run found out, and how it is told: JSON and JUnit for programs, one HTML page and a short
// table for people.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"time"
)

// Result is one run. Times within it are milliseconds after Started.
type Result struct {
	Topology  string    `json:"topology"`
	Seed      uint64    `json:"seed"`
	Kernel    string    `json:"kernel"`
	Dataplane string    `json:"dataplane"` // what carried ESP: "gateway/tun", "xfrm", …
	Shaper    string    `json:"shaper"`    // what gave links their rate and delay: "tbf", "none", …
	Version   string    `json:"version"`   // of pqlab
	Command   []string  `json:"command"`   // repeats the run
	Started   time.Time `json:"started"`
	Duration  float64   `json:"duration_ms"`
	UpMs      float64   `json:"up_ms"` // until the lab was up, exchanges and VerifyMs not counted
	Machine   Machine   `json:"machine"`

	// Links are the directions of those that are shaped, if the topology wants them verified, which took VerifyMs.
	Links    []Link  `json:"links,omitempty"`
	VerifyMs float64 `json:"verify_ms,omitempty"`
	// Lateness is that of each direction of links that are wires.
	Lateness []Lateness `json:"lateness,omitempty"`
	// Fates are those of each direction of links whose fates were recorded or replayed.
	Fates []Fates `json:"fates,omitempty"`

	// Exchange is that of the first tunnel; WriteJSON and WriteDir fill it in from Tunnels where it is nil.
	Exchange *Exchange `json:"exchange"`
	Tunnels  []Tunnel  `json:"tunnels"`
	Traffic  []Flow    `json:"traffic"`
	Rekeys   []Rekey   `json:"rekeys"`
	// RekeyNote says where packets went that Lost of the Rekeys counts; empty if there are none.
	RekeyNote string `json:"rekeys_note,omitempty"`
	// CPUSeconds that the processes of a node took, by its name.
	CPUSeconds map[string]float64 `json:"cpu_seconds"`
	Watches    []Watch            `json:"plaintext_watch"`
	// XfrmStat is what rose in /proc/net/xfrm_stat, by node and by the kernel's name for it. It has each node whose tunnels
	// the kernel's IPsec carried, also where nothing rose.
	XfrmStat map[string]map[string]uint64 `json:"xfrm_stat"`

	// NodeDrops are packets that found no room within nodes, since the lab was up.
	NodeDrops []NodeDrops `json:"node_drops,omitempty"`

	Captures []Capture `json:"captures"`
	Logs     []Log     `json:"logs"` // of daemons that are not pqlab's own

	Checks   []Check  `json:"checks"`
	Warnings []string `json:"warnings"` // what this run did not have or could not show
	Picture  string   `json:"-"`        // of the lab, an SVG document; for the page only
}

// Machine is where the run took place.
type Machine struct {
	CPUs  int    `json:"cpus"`
	Model string `json:"cpu_model"`
}

// Exchange is one key exchange.
type Exchange struct {
	Suite         string  `json:"suite"`
	Ms            float64 `json:"ms"`    // from the first to the last step
	Bytes         uint64  `json:"bytes"` // both ways
	BytesSent     uint64  `json:"bytes_sent"`
	BytesReceived uint64  `json:"bytes_received"` // of the initiator
	Steps         []Step  `json:"steps"`
}

// Step is a part of an exchange.
type Step struct {
	Name string  `json:"name"`
	Side string  `json:"side,omitempty"` // "initiator", "responder"; empty if it belongs to both
	Ms   float64 `json:"ms"`
}

// Tunnel is one ESP tunnel.
type Tunnel struct {
	Name          string    `json:"name"`
	A             string    `json:"a"` // nodes
	B             string    `json:"b"`
	Keying        string    `json:"keying"` // "pqlab", or another daemon and its version
	Suite         string    `json:"suite"`
	Combiner      string    `json:"combiner"`
	Identity      string    `json:"identity"`
	Encapsulation string    `json:"encapsulation"`
	Dataplane     string    `json:"dataplane"`
	Exchange      *Exchange `json:"exchange"`
	SAs           []SA      `json:"sas"`
	Drops         []Drops   `json:"drops"`
}

// SA is one direction of a tunnel, at one of its ends.
type SA struct {
	Node      string `json:"node"`
	Direction string `json:"direction"` // "in", "out"
	SPI       uint32 `json:"spi"`
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
	Blocks    uint64 `json:"blocks"`
}

// Drops of a tunnel at one of its ends, by reason.
type Drops struct {
	Node    string            `json:"node"`
	Reasons map[string]uint64 `json:"reasons"`
}

// Flow is traffic, and what became of it. Package traffic documents the figures. A flow that the network did not carry has them
// too, of what was sent and received until it was given up.
type Flow struct {
	Name    string   `json:"name,omitempty"`
	From    string   `json:"from"`
	To      string   `json:"to"`
	Via     []string `json:"via,omitempty"`     // nodes that relayed it
	Tunnels []string `json:"tunnels,omitempty"` // that it passed
	Proto   string   `json:"proto"`
	Streams int      `json:"streams"`
	Asked   Asked    `json:"asked"`
	// Undelivered is why the flow did not come about, or did not arrive; empty if it did.
	Undelivered   string   `json:"undelivered,omitempty"`
	BitsPerSecond float64  `json:"bits_per_second"`
	Unit          string   `json:"unit"` // of Sent and Received: "packets" (UDP), "bytes" (TCP)
	Sent          uint64   `json:"sent"`
	Received      uint64   `json:"received"`
	Lost          uint64   `json:"lost"`
	Duplicated    uint64   `json:"duplicated"`
	Reordered     uint64   `json:"reordered"`
	Retransmitted uint64   `json:"retransmitted,omitempty"` // TCP segments
	Congestion    string   `json:"congestion,omitempty"`    // TCP: the sender's congestion control, which the rate depends on: "cubic", "bbr", …
	SocketDrops   uint64   `json:"socket_drops"`
	Latency       *Latency `json:"latency_us"`
	Start         float64  `json:"start_ms"`
	Duration      float64  `json:"duration_ms"`
	Bins          []Bin    `json:"bins,omitempty"`
}

// Asked is what a flow was to send.
type Asked struct {
	BitsPerSecond float64 `json:"bits_per_second"`      // of all streams together; 0: as fast as it goes
	FrameSize     int     `json:"frame_size,omitempty"` // UDP, in bytes of IP packet; 0: the largest that fits the way
	Duration      float64 `json:"duration_ms"`
}

// The units of a Flow.
const (
	Packets = "packets"
	Bytes   = "bytes"
)

// way names the ends of a flow and the nodes that relay it.
func (f Flow) way() string {
	way := f.From + " → " + f.To
	if len(f.Via) > 0 {
		way += " via " + strings.Join(f.Via, ", ")
	}
	return way
}

// protocol is with what decides how fast it sends.
func (f Flow) protocol() string {
	if f.Congestion != "" {
		return f.Proto + ", " + f.Congestion
	}
	return f.Proto
}

// rate is what arrived, if all is well.
func (f Flow) rate() string {
	if f.Undelivered != "" {
		return "not delivered"
	}
	return Rate(f.BitsPerSecond)
}

// faster says whether a flow shows better what the lab carries.
func (f Flow) faster(than Flow) bool {
	if (f.Undelivered == "") != (than.Undelivered == "") {
		return f.Undelivered == ""
	}
	return num(f.BitsPerSecond) >= num(than.BitsPerSecond)
}

// asked is what the flow was to send, in words: "1 Mbit/s, for 5 s".
func (f Flow) asked() string {
	rate := "as fast as it goes"
	if f.Asked.BitsPerSecond > 0 {
		rate = Rate(f.Asked.BitsPerSecond)
	}
	if f.Asked.FrameSize > 0 {
		rate += fmt.Sprintf(", frames of %d bytes", f.Asked.FrameSize)
	}
	return rate + ", for " + millis(f.Asked.Duration)
}

// sent is an amount with its unit, where that is not packets.
func (f Flow) sent() string {
	if f.Unit == Bytes {
		return size(f.Sent)
	}
	return count(f.Sent)
}

// Latency is a distribution in microseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
	Mean float64 `json:"mean"`
}

// BinMs is the width of a Bin in milliseconds.
const BinMs = 100

// Bin is what arrived of a flow within BinMs.
type Bin struct {
	At   int64  `json:"at_ms"` // after the flow's Start
	Bits uint64 `json:"bits"`
}

// Rekey is one replacement of a tunnel's keys.
type Rekey struct {
	Tunnel  string  `json:"tunnel"`
	Trigger string  `json:"trigger"`
	At      float64 `json:"at_ms"`
	Ms      float64 `json:"ms"` // until the new SAs carried the traffic
	// Lost are packets that were sent on the SAs it replaced, at any time, and did not arrive: the way's losses too.
	Lost uint64 `json:"lost"`
}

// Watch is what passed a link that only ESP may pass, in packets as the kernel passes them: a GSO buffer counts once.
type Watch struct {
	Link      string `json:"link"`
	ESP       uint64 `json:"esp"` // IP protocol 50
	ESPinUDP  uint64 `json:"esp_in_udp"`
	Exchange  uint64 `json:"exchange"`
	Plaintext uint64 `json:"plaintext"` // between protected subnets, in the clear
	Other     uint64 `json:"other"`
}

// NodeDrops are those of one place in a node, which was not emptied in time.
type NodeDrops struct {
	Node    string `json:"node"`
	Place   string `json:"place"` // "the queue of interface pq0", "the socket of UDP port 4500"
	Packets uint64 `json:"packets"`
}

// Capture is a file of what passed a link.
type Capture struct {
	Link     string `json:"link"`
	File     string `json:"file"`
	Captured uint64 `json:"captured"`
	Dropped  uint64 `json:"dropped"` // packets that passed and are not in the file
}

// Log is what a daemon in a node wrote.
type Log struct {
	Node    string   `json:"node"`
	Program string   `json:"program"`
	Lines   []string `json:"lines"`
}

// Check is one claim that the run verified.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// The verdicts.
const (
	Pass = "pass"
	Fail = "fail"
)

// Verdict is Pass when something was checked and nothing failed.
func (r Result) Verdict() string {
	for _, c := range r.Checks {
		if !c.OK {
			return Fail
		}
	}
	if len(r.Checks) == 0 {
		return Fail
	}
	return Pass
}

func (r Result) failures() int {
	n := 0
	for _, c := range r.Checks {
		if !c.OK {
			n++
		}
	}
	return n
}

// exchange is the top level's.
func (r Result) exchange() *Exchange {
	if r.Exchange == nil && len(r.Tunnels) > 0 {
		return r.Tunnels[0].Exchange
	}
	return r.Exchange
}

// MarshalJSON adds the verdict and the first tunnel's exchange, and makes every list a list: a reader need not know
// null.
func (r Result) MarshalJSON() ([]byte, error) {
	type plain Result
	r.Exchange = r.exchange()
	r = finite(reflect.ValueOf(r)).Interface().(Result)
	return json.Marshal(struct {
		plain
		Verdict string `json:"verdict"`
	}{plain(r), r.Verdict()})
}

// WriteJSON writes the result, indented.
func (r Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("report as JSON: %w", err)
	}
	return nil
}

// finite copies v deeply, with 0 for each NaN and infinity (JSON has neither, and one division by zero must not cost the
// report of a run) and with empty slices and maps for nil ones.
func finite(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Float64:
		if f := v.Float(); !math.IsNaN(f) && !math.IsInf(f, 0) {
			out.SetFloat(f)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(finite(v.Elem()))
		}
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice {
			out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		}
		for i := range v.Len() {
			out.Index(i).Set(finite(v.Index(i)))
		}
	case reflect.Map:
		out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
		for it := v.MapRange(); it.Next(); {
			out.SetMapIndex(it.Key(), finite(it.Value()))
		}
	case reflect.Struct:
		out.Set(v) // time.Time has fields that are not ours
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(finite(v.Field(i)))
			}
		}
	default:
		out.Set(v)
	}
	return out
}
