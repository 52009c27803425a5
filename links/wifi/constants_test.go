package wifi

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tables reads a document's tables: by the first cell of each row, the others.
func tables(t *testing.T, file, heading string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no %q", file, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string][]string{}
	for line := range strings.Lines(section) {
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "| ")
		if !ok || strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "profile |") {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(line, " |"), " | ")
		if rows[cells[0]] != nil {
			t.Errorf("%s has two rows %q", file, cells[0])
		}
		rows[cells[0]] = cells[1:]
	}
	return rows
}

// The manual tells each constant as it is.
func TestConstantsAreThoseOfTheManual(t *testing.T) {
	t.Parallel()
	micro := func(d time.Duration) string { return strconv.FormatInt(int64(d/µs), 10) + " µs" }
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	ac, n, radio := VHT.facts(), HT.facts(), Radio{}.defaults()
	var waits, controls, training []string
	for _, mcs := range []int{0, 1, 3} {
		mbits, _ := response(mcs)
		waits, controls = append(waits, micro(control(blockAck, mbits))), append(controls, strconv.Itoa(mbits))
	}
	for streams := 1; streams <= maxStreams; streams++ {
		r, _ := newRate(ac, 80, streams, 0, false)
		training = append(training, strconv.Itoa(int((r.preamble-ac.preamble)/ltf)))
	}
	long, _ := newRate(ac, 80, 1, 0, false)
	short, _ := newRate(ac, 80, 1, 0, true)
	want := map[string]string{
		"SIFS, slot":                         fmt.Sprintf("%s, %s", micro(sifs), micro(slot)),
		"AIFSN, CWmin, CWmax, TXOP of AC_BE": fmt.Sprintf("%d, %d, %d, one PPDU", (aifs-sifs)/slot, cwMin, cwMax),
		"wait after a collision":             fmt.Sprintf("SIFS and %s, %s or %s (BPSK, QPSK, above)", strings.TrimSuffix(waits[0], " µs"), strings.TrimSuffix(waits[1], " µs"), waits[2]),
		"preamble":                           fmt.Sprintf("802.11ac %s, 802.11n (mixed) %s, and %s for each of %s training fields", micro(ac.preamble), micro(n.preamble), micro(ltf), strings.Join(training, ", ")),
		"data subcarriers":                   fmt.Sprintf("%d, %d, %d, %d of 20, 40, 80, 160 MHz", ac.widths[20], ac.widths[40], ac.widths[80], ac.widths[160]),
		"symbol": fmt.Sprintf("%s, with short guard interval %.1f µs, then up to the next %s",
			micro(symbol), 1e6*float64(short.symbolBits)/short.bitRate(), micro(short.duration(1)-short.preamble)),
		"service, tail": fmt.Sprintf("%d bits, %d bits for each encoder (%d Mbit/s; 802.11n %d)", service, tail, int(float64(ac.coded)/3.6), n.coded/4),
		"MPDU": fmt.Sprintf("QoS header %d, LLC and SNAP %d, CCMP %d, checksum %d bytes, delimiter %d, padded to %d",
			macHeader, llc, ccmp, checksum, delimiter, subframeSize(1)-delimiter),
		"A-MPDU":                                  fmt.Sprintf("%d MPDUs; %d bytes, 802.11n %d; %s", window, ac.aggregate, n.aggregate, micro(maxPPDU)),
		"BlockAck, BlockAckReq":                   fmt.Sprintf("%d and %d bytes at %s, %s or %s Mbit/s (MCS 0; 1, 2; above)", blockAck, blockAckReq, controls[0], controls[1], controls[2]),
		"attempts at an MPDU, and a BlockAckReq":  strconv.Itoa(defaultTries),
		"unanswered until the window starts anew": strconv.Itoa(shortRetryLimit),
		"queue":                               fmt.Sprintf("%d packets", defaultQueue),
		"airtime by turns":                    micro(quantum),
		"rates: averages":                     fmt.Sprintf("each %d ms, %s of what they were", updateInterval/time.Millisecond, number(ewmaOld)),
		"rates: shares":                       fmt.Sprintf("below %s of no use, above %s sturdy, above %s no better", number(hopeless), number(certain), number(capped)),
		"rates: compared by":                  fmt.Sprintf("packets of %d bytes", referenceSize),
		"rates: A-MPDUs, before any was sent": fmt.Sprintf("%d MPDUs", expectedLength),
		"rates: A-MPDUs, averaged":            fmt.Sprintf("1/%d of each", lengthWeight),
		"rates: failures until the next best": strconv.Itoa(attempts),
		"rates: trials":                       fmt.Sprintf("each %d ms, %d MPDUs at most", sampleInterval/time.Millisecond, samplePackets),
		"path loss":                           fmt.Sprintf("free space to %s m, then %s dB for each factor of 10; %s dB a wall; %s GHz", number(radio.Breakpoint), number(10*radio.Exponent), number(radio.WallLoss), number(radio.Frequency)),
		"nearest":                             fmt.Sprintf("%s m", number(nearest)),
		"power, noise":                        fmt.Sprintf("access point %s dBm; %d dBm/Hz, noise figure %s dB", number(radio.Power), thermal, number(radio.NoiseFigure)),
		"errors":                              "Gray-coded QAM, union bound of the convolutional code with hard decisions",
		"energy detection":                    fmt.Sprintf("%d dBm", energyDetect),
		"bursts of interferers":               fmt.Sprintf("%d ms", defaultBurst/time.Millisecond),
	}
	if long.bitRate() != float64(long.symbolBits)/symbol.Seconds() {
		t.Errorf("with the long guard interval %v bit/s", long.bitRate())
	}
	rows := tables(t, "../../docs/wifi.md", "Constants")
	for name, value := range want {
		if cells := rows[name]; len(cells) != 2 || cells[0] != value || cells[1] == "" {
			t.Errorf("%s: the manual has %q, the code %q", name, cells, value)
		}
		delete(rows, name)
	}
	for name, p := range Profiles() {
		guard, highest := "long", 0
		if p.ShortGI {
			guard = "short"
		}
		all := rates(p.Format, p.Width, p.Streams, p.ShortGI)
		last := all[len(all)-1]
		for _, r := range all {
			highest = max(highest, r.mcs)
		}
		m := mustNew(t, Config{Stations: []Station{{Profile: p}}})
		value := []string{
			p.Format.String(), strconv.Itoa(p.Streams), fmt.Sprintf("%d MHz", p.Width), guard, strconv.Itoa(highest),
			fmt.Sprintf("%.1f Mbit/s", last.bitRate()/1e6), strconv.Itoa(m.stations[0].aggregate), fmt.Sprintf("%v dBm", p.Power),
		}
		if cells := rows["`"+name+"`"]; !slices.Equal(cells, value) {
			t.Errorf("%s: the manual has %q, the code %q", name, cells, value)
		}
		delete(rows, "`"+name+"`")
	}
	if len(rows) > 0 {
		t.Errorf("the manual has rows that the code knows nothing of: %v", rows)
	}
}
