"""What real devices told, and where that was written down.

Where only the shape of an answer is documented, the figures are ours, and it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# --- /sys/class/power_supply, as `uevent` of the same folder shows it: each property is a file of its own too
# (kernel, Documentation/power/power_supply_class.rst).

THINKPAD_BAT0 = """
POWER_SUPPLY_TYPE=Battery
POWER_SUPPLY_STATUS=Discharging
POWER_SUPPLY_PRESENT=1
POWER_SUPPLY_VOLTAGE_MIN_DESIGN=11250000
POWER_SUPPLY_VOLTAGE_NOW=10459000
POWER_SUPPLY_POWER_NOW=27758000
POWER_SUPPLY_ENERGY_FULL_DESIGN=23510000
POWER_SUPPLY_ENERGY_FULL=25860000
POWER_SUPPLY_ENERGY_NOW=2420000
POWER_SUPPLY_CAPACITY=9
"""
"""A ThinkPad on the first of two batteries: github.com/jaor/xmobar issue 315."""

THINKPAD_BAT1 = """
POWER_SUPPLY_TYPE=Battery
POWER_SUPPLY_STATUS=Unknown
POWER_SUPPLY_PRESENT=1
POWER_SUPPLY_VOLTAGE_NOW=10000000
POWER_SUPPLY_POWER_NOW=0
POWER_SUPPLY_ENERGY_FULL=20000000
POWER_SUPPLY_ENERGY_NOW=0
POWER_SUPPLY_CAPACITY=0
"""
"""Its second one, empty: the issue shows it with status Unknown; the energies are ours."""

DELL_DISCHARGING = """
POWER_SUPPLY_TYPE=Battery
POWER_SUPPLY_STATUS=Discharging
POWER_SUPPLY_PRESENT=1
POWER_SUPPLY_VOLTAGE_MIN_DESIGN=11400000
POWER_SUPPLY_VOLTAGE_NOW=12600000
POWER_SUPPLY_CURRENT_NOW=756000
POWER_SUPPLY_CHARGE_FULL_DESIGN=4912000
POWER_SUPPLY_CHARGE_FULL=4804000
POWER_SUPPLY_CHARGE_NOW=4723000
POWER_SUPPLY_CAPACITY=98
"""
"""Charges and currents in place of energies: github.com/mjkillough/cnx pull request 31."""

DELL_CHARGING = """
POWER_SUPPLY_TYPE=Battery
POWER_SUPPLY_STATUS=Charging
POWER_SUPPLY_PRESENT=1
POWER_SUPPLY_VOLTAGE_NOW=12729000
POWER_SUPPLY_CURRENT_NOW=413000
POWER_SUPPLY_CHARGE_FULL=3750000
POWER_SUPPLY_CHARGE_NOW=3692000
POWER_SUPPLY_CAPACITY=98
"""
"""github.com/fastfetch-cli/fastfetch issue 118."""

THRESHOLD_REACHED = """
POWER_SUPPLY_TYPE=Battery
POWER_SUPPLY_STATUS=Not charging
POWER_SUPPLY_ENERGY_FULL_DESIGN=80400000
POWER_SUPPLY_ENERGY_FULL=69240000
POWER_SUPPLY_ENERGY_NOW=65440000
POWER_SUPPLY_POWER_NOW=0
"""
"""A ThinkPad X1 kept below full by a threshold:
github.com/wennaspeedy/batt_consumption_wattmetter issue 1."""

TABLET = """
POWER_SUPPLY_TYPE=Battery
POWER_SUPPLY_STATUS=Discharging
POWER_SUPPLY_PRESENT=1
POWER_SUPPLY_VOLTAGE_MIN_DESIGN=3800000
POWER_SUPPLY_VOLTAGE_NOW=3942000
POWER_SUPPLY_CURRENT_NOW=1560000
POWER_SUPPLY_CHARGE_FULL=8000000
POWER_SUPPLY_CHARGE_NOW=5920000
POWER_SUPPLY_CAPACITY=74
"""
"""github.com/sebanc/brunch issue 117."""

MOUSE = """
POWER_SUPPLY_TYPE=Battery
POWER_SUPPLY_ONLINE=1
POWER_SUPPLY_STATUS=Discharging
POWER_SUPPLY_SCOPE=Device
POWER_SUPPLY_CAPACITY=4
"""
"""A wireless mouse: github.com/pwr-Solaar/Solaar issue 1198; the capacity is ours."""

MAINS_ON = "POWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE=1\n"
MAINS_OFF = "POWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE=0\n"


def supplies(root: Path, **uevents: str) -> Path:
    """A tree with `sys/class/power_supply`, a folder for each supply and a file for each property."""
    folder = root / "sys" / "class" / "power_supply"
    folder.mkdir(parents=True, exist_ok=True)
    for name, uevent in uevents.items():
        files(
            folder / name,
            {
                key.removeprefix("POWER_SUPPLY_").lower(): value
                for key, _, value in (line.partition("=") for line in uevent.split("\n") if line)
            },
        )
    return root


def files(folder: Path, content: Mapping[str, str]) -> Path:
    """Files in a folder, each ending with a newline as the kernel's do."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        (folder / name).write_text(value + "\n")
    return folder


# --- vcgencmd

PMIC = """ 3V7_WL_SW_A current(0)=0.00000000A
   3V3_SYS_A current(1)=0.06245952A
   1V8_SYS_A current(2)=0.16102850A
  DDR_VDD2_A current(3)=0.00780744A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.17566740A
    0V8_SW_A current(6)=0.32791250A
  VDD_CORE_A current(7)=10.87674000A
   3V3_DAC_A current(17)=0.00036630A
   3V3_ADC_A current(18)=0.00042735A
   0V8_AON_A current(16)=0.00579975A
      HDMI_A current(22)=0.01367520A
 3V7_WL_SW_V volt(8)=3.79999600V
   3V3_SYS_V volt(9)=3.30632200V
   1V8_SYS_V volt(10)=1.79828900V
  DDR_VDD2_V volt(11)=1.10292900V
  DDR_VDDQ_V volt(12)=0.60476130V
   1V1_SYS_V volt(13)=1.10439400V
    0V8_SW_V volt(14)=0.80256330V
  VDD_CORE_V volt(15)=0.89745940V
   3V3_DAC_V volt(20)=3.30494200V
   3V3_ADC_V volt(21)=3.30219400V
   0V8_AON_V volt(19)=0.79736190V
      HDMI_V volt(23)=5.07056000V
     EXT5V_V volt(24)=5.06788000V
      BATT_V volt(25)=3.01110800V
"""
"""A Raspberry Pi 5 under load: github.com/jfikar/RPi5-power. Numbers in brackets do not pair the rails."""

# --- Termux:API

PHONE_UNPLUGGED = """{
  "health": "GOOD",
  "percentage": 45,
  "plugged": "UNPLUGGED",
  "status": "DISCHARGING",
  "temperature": 34.5,
  "current": -394
}"""
"""Milliamperes: github.com/dylanaraps/neofetch issue 1939."""

PHONE_PLUGGED = """{
  "health": "GOOD",
  "percentage": 96,
  "plugged": "PLUGGED_AC",
  "status": "CHARGING",
  "temperature": 24.600000381469727,
  "current": -252
}"""
"""Charging, with the other sign than Android's book has it: github.com/justinhj/battery.nvim issue 27."""

PHONE_CONFUSED = """{
  "health": "GOOD",
  "percentage": 52,
  "plugged": "UNPLUGGED",
  "status": "NOT_CHARGING",
  "temperature": 31.0,
  "current": 232
}"""
"""github.com/lambdalisue/vim-battery issue 9."""

CHROMEBOOK = """{
  "health": "UNKNOWN",
  "percentage": 71,
  "plugged": "PLUGGED_AC",
  "status": "CHARGING",
  "temperature": 0.0
}"""
"""github.com/termux/termux-api-package issue 27."""

PHONE_2025 = """{
  "present": true,
  "technology": "Li-ion",
  "health": "GOOD",
  "plugged": "UNPLUGGED",
  "status": "DISCHARGING",
  "temperature": 30.1,
  "voltage": 3991,
  "current": -431250,
  "percentage": 72,
  "level": 72,
  "scale": 100,
  "charge_counter": 3384000,
  "cycle": 120
}"""
"""Fields and order of BatteryStatusAPI.java in github.com/termux/termux-api; the figures are ours."""

WIFI = """{
  "bssid": "02:00:00:00:00:00",
  "frequency_mhz": 5180,
  "ip": "192.168.1.20",
  "link_speed_mbps": 433,
  "mac_address": "02:00:00:00:00:00",
  "network_id": 3,
  "rssi": -42,
  "ssid": "<unknown ssid>",
  "ssid_hidden": true,
  "supplicant_state": "COMPLETED"
}"""
"""github.com/termux/termux-api issue 304; the last digits of the address are ours."""

NO_WIFI = '{\n  "ip": "0.0.0.0",\n  "rssi": -127,\n  "supplicant_state": "DISCONNECTED"\n}'
"""The same fields without a network; shape only."""

MOBILE = '{\n  "data_enabled": "true",\n  "data_state": "connected",\n  "network_type": "lte"\n}'
"""Some fields of TelephonyAPI.java in github.com/termux/termux-api; shape only."""

# --- NetworkManager

NMCLI = """GENERAL.STATE:100 (connected)
GENERAL.METERED:yes (guessed)

GENERAL.STATE:30 (disconnected)
GENERAL.METERED:unknown

GENERAL.STATE:100 (connected (externally))
GENERAL.METERED:no (guessed)
"""
"""Words of nmcli(1) and of libnmc's `metered` enumeration; shape only."""
