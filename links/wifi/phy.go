package wifi

import (
	"time"
)

const µs = time.Microsecond

// Format is the kind of PPDU that a station speaks; it decides the preamble, the subcarriers and what may be aggregated.
type Format uint8

const (
	VHT Format = iota // 802.11ac: IEEE 802.11-2020 clause 21
	HT                // 802.11n: clause 19, as HT-mixed
)

func (f Format) String() string {
	if f == HT {
		return "802.11n"
	}
	return "802.11ac"
}

// format is what a Format means. Sources are sections and tables of IEEE 802.11-2020.
type format struct {
	// preamble is all before the training fields of the streams, and what follows them before the data.
	// VHT (21.3.2): L-STF 8, L-LTF 8, L-SIG 4, VHT-SIG-A 8, VHT-STF 4, VHT-SIG-B 4. HT-mixed (19.3.2): HT-SIG in
	// place of VHT-SIG-A, HT-STF, and no SIG-B.
	preamble  time.Duration
	widths    map[int]int // channel width in MHz to data subcarriers N_SD (Tables 19-6 and 21-5)
	mcs       int         // modulation and coding schemes of one stream (Tables 19-27ff., 21-29ff.)
	coded     int         // data bits of a symbol that one BCC encoder takes: 600 Mbit/s with short GI (21.5), 300 Mbit/s (19.5)
	aggregate int         // bytes of an A-MPDU: 2^16-1 (9.4.2.55.3, exponent 3), 2^20-1 (9.4.2.157.2, exponent 7)
}

func (f Format) facts() format {
	if f == HT {
		return format{32 * µs, map[int]int{20: 52, 40: 108}, 8, 1200, 1<<16 - 1}
	}
	return format{36 * µs, map[int]int{20: 52, 40: 108, 80: 234, 160: 468}, 10, 2160, 1<<20 - 1}
}

// modulation is bits per subcarrier and stream, and the code's rate (19.5, 21.5).
type modulation struct {
	bits     int
	num, den int
}

func modulationOf(mcs int) modulation {
	return [...]modulation{
		{1, 1, 2}, {2, 1, 2}, {2, 3, 4}, {4, 1, 2}, {4, 3, 4}, {6, 2, 3}, {6, 3, 4}, {6, 5, 6}, {8, 3, 4}, {8, 5, 6},
	}[mcs]
}

const (
	maxStreams = 4
	ltf        = 4 * µs // of each training field (Tables 19-6, 21-5: T_HT-LTFs, T_VHT-LTF)
	symbol     = 4 * µs // with the long guard interval of 0.8 µs; 3.6 µs with the short one

	service = 16 // bits before the data (17.3.5.2)
	tail    = 6  // bits after it, for each encoder (17.3.5.3)

	// maxPPDU is aPPDUMaxTime: what the length of L-SIG can tell (Table 21-28; 19.3.9.3.5 of HT-mixed).
	maxPPDU = 5484 * µs
)

// rate is one combination of streams and MCS, as a PPDU is sent with.
type rate struct {
	mcs, streams int
	modulation
	symbolBits int // N_DBPS: data bits of a symbol
	encoders   int // N_ES
	short      bool
	preamble   time.Duration
	maxBytes   int           // of an A-MPDU, by its size and by its time
	ack        time.Duration // BlockAck
	ackRate    modulation    // which that is sent with
	request    time.Duration // BlockAckReq
}

// rates are all that a station of this format has, in ascending order of streams and MCS.
func rates(f Format, width, streams int, short bool) []rate {
	facts := f.facts()
	var all []rate
	for n := 1; n <= streams; n++ {
		for i := range facts.mcs {
			if r, ok := newRate(facts, width, n, i, short); ok {
				all = append(all, r)
			}
		}
	}
	return all
}

// newRate makes one of them; ok is false if the channel's width does not allow the MCS.
func newRate(f format, width, streams, mcs int, short bool) (_ rate, ok bool) {
	m := modulationOf(mcs)
	coded := f.widths[width] * m.bits * streams // N_CBPS
	r := rate{mcs: mcs, streams: streams, modulation: m, short: short, symbolBits: coded * m.num / m.den}
	// What the tables of 21.5 leave out, up to four streams: symbols of a broken number of bits (20 MHz MCS 9 with 1, 2 and 4
	// streams), 80 MHz MCS 6 with 3 streams and 160 MHz MCS 9 with 3.
	if coded*m.num%m.den != 0 || streams == 3 && (width == 80 && mcs == 6 || width == 160 && mcs == 9) {
		return rate{}, false
	}
	// As many as are needed, and share the bits evenly.
	r.encoders = (r.symbolBits + f.coded - 1) / f.coded
	for coded%r.encoders != 0 || r.symbolBits%r.encoders != 0 {
		r.encoders++
	}
	// N_LTF for 1 to 4 streams (Tables 19-13, 21-13).
	r.preamble = f.preamble + ltf*time.Duration([...]int{1, 2, 4, 4}[streams-1])
	symbols := int((maxPPDU - r.preamble) / symbol)
	if short {
		symbols = symbols * 10 / 9
	}
	r.maxBytes = min(f.aggregate, (symbols*r.symbolBits-service-tail*r.encoders)/8)
	mbits, ackRate := response(mcs)
	r.ack, r.ackRate = control(blockAck, mbits), ackRate
	r.request = control(blockAckReq, mbits)
	return r, true
}

// duration is how long a PPDU of so many bytes takes (19.4.3, 21.4.3: TXTIME; a short guard interval ends on a symbol's boundary).
func (r *rate) duration(bytes int) time.Duration {
	symbols := (8*bytes + service + tail*r.encoders + r.symbolBits - 1) / r.symbolBits
	if r.short {
		symbols = (9*symbols + 9) / 10
	}
	return r.preamble + time.Duration(symbols)*symbol
}

// bitRate is the PHY rate in bit/s.
func (r *rate) bitRate() float64 {
	if r.short {
		return float64(r.symbolBits) / 3.6e-6
	}
	return float64(r.symbolBits) / 4e-6
}

// Control frames, in bytes with the checksum (9.3.1.7, 9.3.1.8: compressed bitmap).
const (
	blockAck    = 32
	blockAckReq = 24
)

// response is the rate in Mbit/s of the control frames around a PPDU: the fastest mandatory one (6, 12, 24: Table 17-4) that is not above the
// non-HT reference rate of its MCS (10.6.6.5.2, 10.6.11).
func response(mcs int) (mbits int, m modulation) {
	switch mcs {
	case 0:
		return 6, modulation{1, 1, 2}
	case 1, 2:
		return 12, modulation{2, 1, 2}
	}
	return 24, modulation{4, 1, 2}
}

// control is how long a frame takes in the format of clause 17 (17.4.3), duplicated over the channel.
func control(bytes, mbits int) time.Duration {
	perSymbol := 4 * mbits
	return 20*µs + symbol*time.Duration((service+8*bytes+tail+perSymbol-1)/perSymbol)
}

// An MPDU around a packet (9.3.2.1: QoS Data; CCMP as all networks have it).
const (
	macHeader = 26 // three addresses and QoS control (9.2.3)
	llc       = 8  // LLC and SNAP, in place of Ethernet's type (802.2, RFC 1042)
	ccmp      = 16 // header and MIC (12.5.3.2)
	checksum  = 4

	ethernet  = 14 // header of the frame that comes from the host, which the MPDU does not carry
	delimiter = 4  // before each MPDU in an A-MPDU, which is padded to 4 bytes (9.7.1)
)

// mpduSize is the MPDU's length for an Ethernet frame, and subframeSize what it takes in an A-MPDU.
func mpduSize(frame int) int { return max(frame-ethernet, 0) + macHeader + llc + ccmp + checksum }

func subframeSize(mpdu int) int { return delimiter + (mpdu+3)&^3 }

// Contention of AC_BE on a channel of 5 GHz, whose TXOP limit of 0 allows one PPDU (Table 9-155).
const (
	sifs = 16 * µs       // aSIFSTime (Tables 17-21, 19-25, 21-28)
	slot = 9 * µs        // aSlotTime (same)
	aifs = sifs + 3*slot // AIFSN 3 (Table 9-155)

	cwMin = 15   // aCWmin (same)
	cwMax = 1023 // aCWmax (same)

	// defaultTries is how often an MPDU is sent at most: that of Linux' iwlwifi (IWL_DEFAULT_TX_RETRY). The standard's
	// dot11ShortRetryLimit (Annex C) resets the contention window.
	defaultTries    = 15
	shortRetryLimit = 7

	// window is how many MPDUs a BlockAck agreement lets be on their way (9.4.1.13: buffer size; a compressed bitmap has 64 bits).
	window = 64
)
