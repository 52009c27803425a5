package topology

import (
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Bit rates.
const (
	Bit  Rate = 1 // bit/s
	Kbit      = 1000 * Bit
	Mbit      = 1000 * Kbit
	Gbit      = 1000 * Mbit
	Tbit      = 1000 * Gbit
)

// MaxRate is that of the fastest Ethernet there is (IEEE P802.3dj). No link and no flow has more.
const MaxRate = 1600 * Gbit

type unit struct {
	name string
	size uint64
}

func rateUnits() []unit {
	return []unit{{"Tbit/s", uint64(Tbit)}, {"Gbit/s", uint64(Gbit)}, {"Mbit/s", uint64(Mbit)}, {"kbit/s", uint64(Kbit)}, {"bit/s", 1}}
}

func byteUnits() []unit {
	return []unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
}

// String is exact, in the largest unit that gives an integer: "2500Mbit/s".
func (r Rate) String() string { return formatUnit(uint64(r), rateUnits()) }

// ParseRate reads "10Mbit/s" or "2.5Gbit/s". The rate is a whole number of bit/s, not 0, and
// MaxRate at most.
func ParseRate(s string) (Rate, error) {
	n, err := parseUnit(s, rateUnits())
	switch {
	case err != nil:
	case n == 0:
		err = errors.New("0 carries nothing; leave the rate out for an unshaped link")
	default:
		err = checkFast(Rate(n))
	}
	return Rate(n), err
}

func checkFast(r Rate) error {
	if r > MaxRate {
		return fmt.Errorf("is more than %v, the fastest Ethernet there is", MaxRate)
	}
	return nil
}

func formatUnit(n uint64, units []unit) string {
	for _, u := range units {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatUint(n/u.size, 10) + u.name
		}
	}
	return "0" + units[len(units)-1].name
}

// parseUnit reads a decimal number and one of the units, exactly.
func parseUnit(s string, units []unit) (uint64, error) {
	number := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/%")
	name := s[len(number):]
	number = strings.TrimSuffix(number, " ")
	names := make([]string, len(units))
	for i, u := range units {
		names[i] = u.name
		if u.name != name {
			continue
		}
		if err := checkDecimal(number); err != nil {
			return 0, err
		}
		n, ok := new(big.Rat).SetString(number)
		if !ok {
			return 0, fmt.Errorf("%s is not a number", quote(number))
		}
		n.Mul(n, new(big.Rat).SetInt(new(big.Int).SetUint64(u.size)))
		switch {
		case !n.IsInt():
			return 0, fmt.Errorf("is not a whole number of %s", units[len(units)-1].name)
		case !n.Num().IsUint64():
			return 0, fmt.Errorf("is larger than %d%s", ^uint64(0), units[len(units)-1].name)
		}
		return n.Num().Uint64(), nil
	}
	if name == "" {
		return 0, fmt.Errorf("has no unit; give one of %s", strings.Join(names, ", "))
	}
	return 0, fmt.Errorf("unit %s is none of %s%s", quote(name), strings.Join(names, ", "), DidYouMean(name, names))
}

// checkDecimal accepts digits with at most one point. It keeps exponents, signs and long texts from the number parsers.
func checkDecimal(s string) error {
	switch {
	case strings.HasPrefix(s, "-"):
		return errors.New("is negative")
	case s == "" || len(s) > 40:
		return errors.New("is not a number that fits")
	case strings.Trim(s, "0123456789.") != "" || strings.Count(s, ".") > 1 || strings.Trim(s, ".") != s:
		return fmt.Errorf("%s is not a number", quote(s))
	}
	return nil
}

// maxTime bounds every duration of a topology, so that sums of them do not overflow.
const maxTime = 366 * 24 * time.Hour

// ParseTime reads "5ms" or "1h30m".
func ParseTime(s string) (time.Duration, error) {
	if s != "" && strings.Trim(s, "0123456789.") == "" {
		return 0, errors.New("has no unit; write 5ms, 10s, 2m, 1h30m")
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, errors.New("is not a duration as 5ms, 10s, 2m, 1h30m")
	case d < 0:
		return 0, errors.New("is negative")
	case d > maxTime:
		return 0, fmt.Errorf("is longer than %v", maxTime)
	}
	return d, nil
}

// parseLoss reads "1%" or "0.01". The per cent sign moves the point in the decimal text, so that "1%" is exactly the
// float64 that "0.01" is.
func parseLoss(s string) (float64, error) {
	exponent := ""
	number := s
	if strings.HasSuffix(s, "%") {
		number, exponent = s[:len(s)-1], "e-2"
	}
	f, err := parseFloat(number, exponent)
	if err == nil && f > 1 {
		err = errors.New("is more than everything; give a share from 0 to 1, or 0% to 100%")
	}
	return f, err
}

func formatLoss(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// parseLength reads "10km" or "80m" as metres.
func parseLength(s string) (float64, error) {
	switch {
	case strings.HasSuffix(s, "km"):
		return parseFloat(s[:len(s)-2], "e3")
	case strings.HasSuffix(s, "m"):
		return parseFloat(s[:len(s)-1], "")
	}
	return 0, errors.New("has no unit; give m or km")
}

func formatLength(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) + "m" }

// parseNumber reads a decimal number with or without a sign.
func parseNumber(s string) (float64, error) {
	number, negative := strings.CutPrefix(s, "-")
	f, err := parseFloat(number, "")
	if negative {
		f = -f
	}
	return f + 0, err // not -0, which is written 0 and would not be read back as it was
}

func parseFloat(number, exponent string) (float64, error) {
	if strings.HasPrefix(number, "-") {
		return 0, errors.New("is negative")
	}
	if number == "" || len(number) > 400 || strings.Trim(number, "0123456789.") != "" {
		return 0, errors.New("is not a decimal number")
	}
	f, err := strconv.ParseFloat(number+exponent, 64)
	if err != nil {
		return 0, errors.New("is not a decimal number that fits")
	}
	return f, nil
}

// ParseCount reads "1000000" or "2^30".
func ParseCount(s string) (uint64, error) {
	if power, ok := strings.CutPrefix(s, "2^"); ok {
		n, err := strconv.ParseUint(power, 10, 8)
		if err != nil || n > 63 {
			return 0, errors.New("is not a power of two up to 2^63")
		}
		return 1 << n, nil
	}
	if strings.HasPrefix(s, "-") {
		return 0, errors.New("is negative")
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("is larger than %d", ^uint64(0))
	}
	if err != nil {
		return 0, errors.New("is not a whole number, nor a power as 2^30")
	}
	return n, nil
}

func formatCount(n uint64) string {
	if n >= 1<<16 && bits.OnesCount64(n) == 1 {
		return "2^" + strconv.Itoa(bits.TrailingZeros64(n))
	}
	return strconv.FormatUint(n, 10)
}

// ParseBytes reads a count, or one with a unit: "64MiB".
func ParseBytes(s string) (uint64, error) {
	if strings.HasSuffix(s, "B") {
		return parseUnit(s, byteUnits())
	}
	return ParseCount(s)
}

func formatBytes(n uint64) string { return formatUnit(n, byteUnits()) }
