package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// sample is a run as it comes out of a real one.
func sample() Result {
	r := rand.New(rand.NewPCG(1, 2))
	flow := func(proto string, rate float64, seconds float64) Flow {
		f := Flow{
			From: "h1", To: "h2", Proto: proto, Streams: 4, BitsPerSecond: rate, Unit: Packets, Sent: 1_234_567, Received: 1_234_567,
			Tunnels: []string{"fibre"}, Start: 812, Duration: seconds * 1e3, Latency: &Latency{180.2, 320, 655.1, 2200, 201.7},
		}
		if proto == "tcp" {
			f.Congestion = "bbr"
		}
		for i := range int(seconds * 10) {
			f.Bins = append(f.Bins, Bin{int64(i) * BinMs, uint64(rate / 10 * (0.93 + 0.1*r.Float64()))})
		}
		return f
	}
	exchange := &Exchange{
		Suite: "mldsa65+mlkem768", Ms: 9.83, Bytes: 12_345, BytesSent: 4_321, BytesReceived: 8_024,
		Steps: []Step{
			{"TLS handshake", "", 3.12}, {"keygen", "responder", 0.35}, {"sign", "responder", 0.48}, {"verify", "initiator", 0.12},
			{"encapsulate", "initiator", 0.031}, {"decapsulate", "responder", 0.029}, {"combine", "initiator", 0.004},
			{"confirm", "", 1.9},
		},
	}
	return Result{
		Topology: "east-west", Seed: 1, Kernel: "6.18.5", Dataplane: "gateway/tun", Shaper: "tbf", Version: "0.1.0",
		Command: []string{"pqlab", "run", "east-west", "--duration", "5s", "--rekey-blocks", "2000000", "--report", "out dir"},
		Started: time.Date(2026, 3, 1, 12, 30, 15, 0, time.UTC), Duration: 6_812, Machine: Machine{2, "AMD EPYC"},
		Tunnels: []Tunnel{{
			Name: "fibre", A: "d1", B: "d2", Keying: "pqlab", Suite: "mldsa65+mlkem768", Combiner: "xor", Identity: "fresh", Encapsulation: "udp",
			Dataplane: "gateway/tun", Exchange: exchange,
			SAs: []SA{{"d1", "out", 0xc0ffee01, 400_123, 560_172_200, 35_610_947}, {"d2", "in", 0xc0ffee01, 400_123, 560_172_200, 35_610_947},
				{"d2", "out", 0xc0ffee02, 200_003, 10_400_156, 800_012}, {"d1", "in", 0xc0ffee02, 200_003, 10_400_156, 800_012}},
			Drops: []Drops{{"d1", map[string]uint64{"replay": 0, "no_sa": 0}}, {"d2", map[string]uint64{"unknown_spi": 2}}},
		}},
		Traffic: []Flow{flow("tcp", 2.1e9, 5), flow("udp", 100e6, 5)},
		Rekeys: []Rekey{{"fibre", "blocks", 1620, 11.2, 0}, {"fibre", "blocks", 3110, 10.9, 0}, {"fibre", "time", 3400, 10.9, 0},
			{"fibre", "blocks", 4730.5, 12.4, 3}},
		Links: []Link{
			{
				Link: "d1-d2", From: "d1", To: "d2", Shaper: "wire", Wanted: "rate 20Mbit/s, delay 10ms, jitter 2ms, loss 1%", Tries: 1,
				Delay: &LinkDelay{Packets: 250, Wanted: [3]float64{8.65, 10, 11.35}, Sending: 0.04, Seen: [3]float64{8.7, 10.11, 11.4},
					Low: [3]float64{8.4, 9.9, 11.1}, High: [3]float64{9, 10.3, 11.9}, Least: 3.1, P99: 14.9, Most: 17.2},
				Loss: &LinkShare{5000, 52, 0.01, 0.0104, 0.0065, 0.0157}, Duplication: &LinkShare{5000, 9, 0.002, 0.0018, 0.0005, 0.0045}, Rate: &LinkRate{20e6, 19.96e6},
				LateMs: 0.4, LateP99Ms: 0.1,
			},
			{
				Link: "d1-d2", From: "d2", To: "d1", Shaper: "wire", Wanted: "delay 10ms", Tries: 2,
				Delay: &LinkDelay{Packets: 300, Wanted: [3]float64{10, 10, 10}, Seen: [3]float64{10.07, 10.08, 10.09}, P99: 10.4, Most: 12},
				Loss:  &LinkShare{Packets: 300, High: 0.0306},
			},
			{Link: "spare", From: "h1", To: "h2", Shaper: "tbf", Wanted: "rate 40Gbit/s", Tries: 1, Unmeasured: []string{"rate 40Gbit/s: one sender does not make so much"}},
		},
		VerifyMs:   3210,
		Lateness:   []Lateness{{Link: "d1-d2", From: "d1", To: "d2", Packets: 812_345, P50: 0.062, P99: 0.31, Max: 4.2}, {"d1-d2", "d2", "d1", 4_812, 0.05, 7.9, 21, 12, true}},
		CPUSeconds: map[string]float64{"h1": 1.9, "d1": 4.8, "d2": 5.1, "h2": 2.2},
		XfrmStat:   map[string]map[string]uint64{"d1": {}, "d2": {"XfrmInNoStates": 2}},
		Watches:    []Watch{{Link: "d1-d2", ESPinUDP: 1_234_567, Exchange: 31, Other: 8}, {Link: "spare", ESP: 7, Plaintext: 3}},
		Checks: []Check{{"no packet lost in a rekey", false, "3 lost at 4.730 s"}, {"no plaintext on d1-d2", true, "1 234 567 ESP packets, 0 in plaintext"},
			{"at least two rekeys by blocks", true, "3"}},
		Logs:     []Log{{"d1", "charon", []string{"00[LIB] loaded plugins", "05[IKE] CHILD_SA established"}}},
		Warnings: []string{"CPU limits are not applied: no cgroup is delegated to this user"},
		Picture: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 90"><style>text{font:14px sans-serif;text-anchor:middle}` +
			`rect{fill:#cfe3f5;stroke:#36c}@media(prefers-color-scheme:dark){rect{fill:#234}text{fill:#eee}}</style>` +
			`<path d="M60 45H540" stroke="#888"/><rect x="20" y="25" width="80" height="40"/><text x="60" y="50">h1</text>` +
			`<rect x="180" y="25" width="80" height="40"/><text x="220" y="50">d1</text><rect x="340" y="25" width="80" height="40"/>` +
			`<text x="380" y="50">d2</text><rect x="500" y="25" width="80" height="40"/><text x="540" y="50">h2</text></svg>`,
	}
}

// extreme runs, by name.
func extreme() map[string]Result {
	one := sample()
	one.Traffic = one.Traffic[:1]
	one.Traffic[0].Bins = one.Traffic[0].Bins[:1]
	one.Traffic[0].Duration = 61
	one.Rekeys = nil
	one.Checks = one.Checks[1:]

	many := sample()
	for range 5 {
		many.Links, many.Lateness = append(many.Links, sample().Links...), append(many.Lateness, many.Lateness...)
	}
	many.Rekeys, many.Tunnels, many.Traffic, many.CPUSeconds = nil, nil, nil, map[string]float64{}
	for i := range 100 {
		many.Rekeys = append(many.Rekeys, Rekey{fmt.Sprint("t", i%7), "packets", 900 + 49*float64(i), 8, uint64(i % 29 / 28)})
	}
	for i := range 20 {
		s := sample()
		t, f := s.Tunnels[0], s.Traffic[i%2]
		t.Name = fmt.Sprintf("tunnel-%d", i)
		e := *t.Exchange
		e.Steps = append([]Step(nil), e.Steps...)
		for j := range e.Steps {
			e.Steps[j].Ms *= 0.7 + 0.05*float64(i)
		}
		t.Exchange = &e
		f.From, f.To = fmt.Sprint("h", i), fmt.Sprint("h", i+20)
		for j := range f.Bins {
			f.Bins[j].Bits = f.Bins[j].Bits * uint64(i+3) / 20
		}
		many.Tunnels = append(many.Tunnels, t)
		many.Traffic = append(many.Traffic, f)
		for _, end := range []string{"h", "d"} {
			many.CPUSeconds[fmt.Sprintf("%s%d", end, i)] = float64(i*i) / 50
		}
	}

	long := sample()
	name := strings.Repeat("a-very-long-name-", 12)
	long.Topology = name
	long.CPUSeconds = map[string]float64{name: 3, name + "2": 1e-5, "x": 0}
	long.Traffic[0].From, long.Traffic[0].To, long.Traffic[0].Name = name, name+"2", name
	long.Traffic[1].Sent, long.Traffic[1].Lost, long.Traffic[1].SocketDrops = math.MaxUint64, math.MaxUint64, 12
	long.Tunnels[0].Name, long.Tunnels[0].A, long.Tunnels[0].Exchange.Steps[0].Name = name, name, name
	long.Rekeys[0].Trigger, long.Rekeys[0].Tunnel = name, name
	long.Checks[0].Name, long.Checks[0].Detail = name, name+" "+name
	long.Warnings = append(long.Warnings, name+name)
	long.Command = append(long.Command, name, "it's", "")

	long.Links[0].Link, long.Links[0].From, long.Links[0].Wanted, long.Lateness[1].Link = name, name, name, name

	hour := sample()
	hour.Duration = 3.6e6
	f := &hour.Traffic[1]
	f.Duration, f.Bins = 3.6e6, nil
	for i := range 36000 {
		f.Bins = append(f.Bins, Bin{int64(i) * BinMs, uint64(3000 + 2000*math.Sin(float64(i)/3000))})
	}
	hour.Traffic = hour.Traffic[1:]
	hour.Rekeys = []Rekey{{"fibre", "time", 600e3, 9, 0}, {"fibre", "time", 1200e3, 9, 0}, {"fibre", "time", 1800e3, 9, 0}}

	bad := sample()
	nan, inf := math.NaN(), math.Inf(1)
	bad.Duration, bad.CPUSeconds["d1"], bad.CPUSeconds["d2"] = nan, nan, inf
	bad.Traffic[0].BitsPerSecond, bad.Traffic[0].Start, bad.Traffic[0].Duration = inf, nan, -inf
	bad.Traffic[0].Latency = &Latency{nan, nan, inf, nan, nan}
	bad.Traffic[1].Bins[3] = Bin{-5, math.MaxUint64}
	bad.Links[0].Delay.Seen, bad.Links[0].Rate.Seen, bad.Links[0].Loss.High, bad.Lateness[0].P99 = [3]float64{nan, inf, -inf}, inf, nan, -inf
	bad.Rekeys[0].At, bad.Rekeys[1].At, bad.Rekeys[2].Ms = nan, inf, -inf
	bad.Tunnels[0].Exchange.Steps[0].Ms, bad.Tunnels[0].Exchange.Steps[1].Ms, bad.Tunnels[0].Exchange.Ms = nan, -inf, inf

	return map[string]Result{"empty": {}, "one bin": one, "many": many, "long names": long, "an hour": hour, "no numbers": bad, "usual": sample()}
}

// samplesDir is where a person wants to look at the samples.
func samplesDir() string { return os.Getenv("PQLAB_REPORT_SAMPLES") }
