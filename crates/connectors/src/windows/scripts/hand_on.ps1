# volvelle: hand-on
# Gives what logs on with an account its new password, and starts it anew if it runs.
param($kind, $name, $user, $password, $restart)
function Same($account) { ($account -split '[\\]')[-1].Split('@')[0] -eq $user }
try {
  if ($kind -eq 'service') {
    $found = Get-CimInstance Win32_Service -Filter ("Name='" + $name.Replace("'", "\'") + "'")
    if (-not $found) { 'result=missing'; return }
    if (-not (Same $found.StartName)) { 'result=other'; return }
    $done = Invoke-CimMethod -InputObject $found -MethodName Change -Arguments @{ StartPassword = $password }
    if ($done.ReturnValue -ne 0) { 'result=' + $done.ReturnValue.ToString('x8'); return }
    if ($found.State -eq 'Running' -and $restart -eq 'yes') { Restart-Service -Name $name -Force -ErrorAction Stop }
  } elseif ($kind -eq 'pool') {
    Import-Module WebAdministration -ErrorAction Stop
    $path = "IIS:\AppPools\$name"
    if (-not (Test-Path $path)) { 'result=missing'; return }
    if (-not (Same (Get-ItemProperty $path).processModel.userName)) { 'result=other'; return }
    Set-ItemProperty $path -Name processModel.password -Value $password -ErrorAction Stop
    if ((Get-WebAppPoolState -Name $name).Value -eq 'Started' -and $restart -eq 'yes') { Restart-WebAppPool -Name $name -ErrorAction Stop }
  } else {
    $folder = $name.Substring(0, $name.LastIndexOf('\') + 1)
    $found = Get-ScheduledTask -TaskName $name.Substring($folder.Length) -ErrorAction SilentlyContinue |
      Where-Object { -not $folder -or $_.TaskPath.Trim('\') -eq $folder.Trim('\') } | Select-Object -First 1
    if (-not $found) { 'result=missing'; return }
    if (-not (Same $found.Principal.UserId)) { 'result=other'; return }
    [void](Set-ScheduledTask -TaskName $found.TaskName -TaskPath $found.TaskPath -User $found.Principal.UserId -Password $password -ErrorAction Stop)
  }
  'result=0'
} catch { 'result=' + $_.Exception.GetBaseException().HResult.ToString('x8') }
