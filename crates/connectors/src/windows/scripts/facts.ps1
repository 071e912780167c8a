# volvelle: facts
# What an account of this host is, and whether whoever runs this may set its password.
param($user)
$me = New-Object Security.Principal.WindowsPrincipal([Security.Principal.WindowsIdentity]::GetCurrent())
"admin=" + $me.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
if ((Get-CimInstance Win32_ComputerSystem).DomainRole -ge 4) { 'controller=True' }
try {
  $account = [ADSI]"WinNT://$env:COMPUTERNAME/$user,user"
  if (-not $account.Name.Value) { throw 'missing' }
  $flags = [int]$account.UserFlags.Value
  'account=True'
  'disabled=' + [bool]($flags -band 2)
  'locked=' + [bool]$account.psbase.InvokeGet('IsAccountLocked')
  'length=' + $account.MinPasswordLength.Value
} catch { 'account=False' }
