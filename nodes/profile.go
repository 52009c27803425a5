package nodes

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Profile is how much CPU a device has, measured in cores of this machine. It caps how long a node may compute; it does
// not imitate the device's instructions, caches or accelerators.
type Profile struct {
	Name   string
	Cores  int     // of the device
	Share  float64 // what one of them does in the time of a core of this machine, 0 to 1
	Source string
}

// Profiles lists the known devices; topology.Profiles lists their names. Cores are the makers' figures; Share is an estimate from clock rate and published
// single-thread scores beside a server core of 2021, rounded to 0.05.
func Profiles() []Profile {
	return []Profile{
		{"bluefield-2", 8, 0.35, "8 Arm Cortex-A72 at 2.5 GHz (NVIDIA BlueField-2 datasheet)"},
		{"bluefield-3", 16, 0.8, "16 Arm Cortex-A78 at 3.0 GHz (NVIDIA BlueField-3 datasheet)"},
		{"jetson-nano", 4, 0.15, "4 Arm Cortex-A57 at 1.43 GHz (NVIDIA Jetson Nano datasheet)"},
		{"jetson-orin-nano", 6, 0.4, "6 Arm Cortex-A78AE at 1.5 GHz (NVIDIA Jetson Orin Nano datasheet)"},
		{"raspberry-pi-4", 4, 0.2, "4 Arm Cortex-A72 at 1.5 GHz (Raspberry Pi 4 Model B product brief)"},
		{"raspberry-pi-5", 4, 0.45, "4 Arm Cortex-A76 at 2.4 GHz (Raspberry Pi 5 product brief)"},
		{"xeon", 24, 1, "24 cores at 2.8 GHz (Intel Xeon Gold 6342, ark.intel.com); the measure of the others"},
	}
}

// ErrUnknownProfile is wrapped by ProfileByName's error for a name that is not in Profiles.
var ErrUnknownProfile = errors.New("unknown device profile")

// ProfileByName finds a profile.
func ProfileByName(name string) (Profile, error) {
	all := Profiles()
	if i := slices.IndexFunc(all, func(p Profile) bool { return p.Name == name }); i >= 0 {
		return all[i], nil
	}
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.Name
	}
	return Profile{}, fmt.Errorf("%w %q; known are %s", ErrUnknownProfile, name, strings.Join(names, ", "))
}

// coreQuota is the CPU time that one core of the device has in a corePeriod.
func (p Profile) coreQuota() time.Duration {
	return max(time.Duration(math.Round(p.Share*float64(corePeriod))), time.Millisecond)
}

// quota is the CPU time that the device has in a period. The kernel takes no less than 1 ms.
func (p Profile) quota() time.Duration {
	return max(time.Duration(math.Round(float64(p.Cores)*p.Share*float64(period))), time.Millisecond)
}
